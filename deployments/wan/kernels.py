"""Attention kernels for diffusers: FlashAttention 3 of the package fa3-fwd, and PyTorch's flash attention on a CPU.

diffusers 0.42.1 looks for FlashAttention 3 under the name of its source build only. The package holds the same kernels,
forward pass alone, as a wheel. Each kernel also gives the log-sum-exp of its rows, by which a ring of ranks joins its
parts.
"""

from functools import cache
from importlib import import_module
from typing import Any

import torch
from diffusers.models.attention_dispatch import (
    AttentionBackendName,
    _AttentionBackendRegistry,
    _templated_context_parallel_attention,
)

FLASH_3_PACKAGE = "fa3_fwd_interface"

Attended = tuple[torch.Tensor, torch.Tensor]  # [batch, tokens, heads, head size], and [batch, tokens, heads]


@cache
def register_flash_attention_3() -> None:
    """Make diffusers' backend `_flash_3` call the installed package, in this process; later calls do nothing.

    Raises:
        ImportError: the package is not installed, or was built for another CUDA.
    """
    flash_attention = import_module(FLASH_3_PACKAGE).flash_attn_func

    # Opaque operators: torch.compile must not look into the extension's Python code.
    @torch.library.custom_op("wan_lora_serve::flash_attention_3", mutates_args=(), device_types="cuda")
    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        result = flash_attention(query, key, value)
        attended: torch.Tensor = result[0] if isinstance(result, tuple) else result
        return attended

    @attend.register_fake
    def _shape(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return torch.empty_like(query)

    @torch.library.custom_op("wan_lora_serve::flash_attention_3_part", mutates_args=(), device_types="cuda")
    def attend_part(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> Attended:
        attended, row_sums, *_ = flash_attention(query, key, value, return_attn_probs=True)
        return attended, row_sums.transpose(1, 2).contiguous()

    @attend_part.register_fake
    def _shapes(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> Attended:
        return torch.empty_like(query), query.new_empty(query.shape[:3], dtype=torch.float32)

    def kernel(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, part: bool) -> Any:
        return attend_part(query, key, value) if part else attend(query, key, value)

    _register(AttentionBackendName._FLASH_3, kernel)


@cache
def register_flash_attention_on_cpu() -> None:
    """Make diffusers' backend `_native_flash` (PyTorch's flash attention on GPUs) call PyTorch's CPU kernel."""

    def kernel(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, part: bool) -> Any:
        # [batch, heads, tokens, head size] is what PyTorch takes
        heads_first = (tensor.transpose(1, 2) for tensor in (query, key, value))
        attended, row_sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*heads_first)
        return (attended.transpose(1, 2), row_sums.transpose(1, 2)) if part else attended.transpose(1, 2)

    _register(AttentionBackendName._NATIVE_FLASH, kernel)


def _register(name: AttentionBackendName, kernel: Any) -> None:
    """Register `kernel`, which also returns the log-sum-exp if its last argument is true.

    Query, key and value are [batch, tokens, heads, head size]; Wan uses no mask and no other scale.
    """

    def forward(_context: Any, *arguments: Any, **_: Any) -> Any:
        return kernel(*arguments[:3], arguments[-1])  # the last is diffusers' `return_lse`

    @_AttentionBackendRegistry.register(name, supports_context_parallel=True)
    def _backend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, _parallel_config: Any = None) -> Any:
        if _parallel_config is None:
            return kernel(query, key, value, False)
        return _templated_context_parallel_attention(
            query, key, value, forward_op=forward, backward_op=None, _parallel_config=_parallel_config
        )
