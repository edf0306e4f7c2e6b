"""FlashAttention 3 for diffusers: the package fa3-fwd, registered as the backend `_flash_3`.

diffusers 0.42.1 looks for FlashAttention 3 under the name of its source build only. The package holds the same kernels,
forward pass alone, as a wheel.
"""

from functools import cache
from importlib import import_module

import torch
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry

FLASH_3_PACKAGE = "fa3_fwd_interface"


@cache
def register_flash_attention_3() -> None:
    """Have diffusers' backend `_flash_3` call the installed package; in this process, once.

    Raises:
        ImportError: the package is not installed, or was built for another CUDA.
    """
    flash_attention = import_module(FLASH_3_PACKAGE).flash_attn_func

    # An opaque operator: torch.compile must not look into the extension's Python code.
    @torch.library.custom_op("wan_lora_serve::flash_attention_3", mutates_args=(), device_types="cuda")
    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        result = flash_attention(query, key, value)
        attended: torch.Tensor = result[0] if isinstance(result, tuple) else result
        return attended

    @attend.register_fake
    def _shape(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return torch.empty_like(query)

    @_AttentionBackendRegistry.register(AttentionBackendName._FLASH_3)
    def _backend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Attend: query, key and value are [batch, tokens, heads, head size]; Wan uses no mask and no other scale."""
        attended: torch.Tensor = attend(query, key, value)
        return attended
