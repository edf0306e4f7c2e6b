"""Speed profiles: which attention kernel computes, and whether the repeated blocks of the experts are compiled.

Example:
    accelerator = Accelerator([pipe.transformer, pipe.transformer_2], torch.device("cuda"), torch.bfloat16)
    with accelerator.running(Speed.FAST) as acceleration:
        ...  # render
    acceleration.attention  # <Attention.FLASH_3>

A render in `exact` runs the same code as if there were no other profile: its kernel is PyTorch's choice, and compiled
blocks run eagerly. Figures for every choice here are in docs/performance.md.
"""

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from diffusers.models.attention_dispatch import AttentionBackendName
from diffusers.models.transformers.transformer_wan import WanAttention
from torch.fx.experimental import _config as shape_config

from deployments.wan.kernels import FLASH_3_PACKAGE, register_flash_attention_3
from serve_app.results import Acceleration, Attention
from serve_app.spec import Speed

logger = logging.getLogger("ray.serve.wan")

HOPPER = 9  # CUDA compute capability, major; FlashAttention 3 is written for it alone

_BACKENDS: dict[Attention, AttentionBackendName] = {
    Attention.CUDNN: AttentionBackendName._NATIVE_CUDNN,
    Attention.FLASH_3: AttentionBackendName._FLASH_3,
}


class Accelerator:
    """Switches the experts of one pipeline between speed profiles. Not safe for two threads at once."""

    def __init__(
        self,
        experts: Iterable[Any],
        device: torch.device,
        dtype: torch.dtype,
        *,
        attention: Attention | None = None,
        backend: str = "inductor",
    ) -> None:
        """Take over the attention processors and the compilation of `experts`, WanTransformer3DModels of `dtype`.

        `attention` is what `fast` computes with, silent the best that there is; `backend` is torch.compile's.
        """
        self._experts = list(experts)
        self._processors = [
            module.processor
            for expert in self._experts
            for module in expert.modules()
            if isinstance(module, WanAttention)
        ]
        self._device = device
        self._backend = backend
        self._attention = attention or best_attention(device, dtype)
        self._compiled = False

    @contextmanager
    def running(self, speed: Speed, *, hooked: bool = False) -> Iterator[Acceleration]:
        """Run the experts under `speed` while the block runs, and say how.

        `hooked`: every layer has an offload hook, which a compiled block could not run.
        """
        fast = speed is Speed.FAST
        compiled = fast and not hooked and self._can_compile
        if compiled:
            self._compile()
        attention = self._attention if fast else Attention.NATIVE
        self._use(attention)
        stance = torch.compiler.set_stance("default" if compiled else "force_eager")
        # Else a first video that is square is compiled for square videos only.
        any_shape = shape_config.patch(use_duck_shape=False)  # type: ignore[attr-defined]  # torch adds it at import
        with stance, any_shape:
            yield Acceleration(speed=speed, attention=attention, compiled=compiled)

    @property
    def _can_compile(self) -> bool:
        """Return whether compiling pays: on a CPU it needs a C++ compiler and gains nothing on a tiny model."""
        return self._device.type == "cuda" or self._backend != "inductor"

    def _compile(self) -> None:
        """Mark every repeated block for compilation, once. The first call compiles; the blocks share the result."""
        if not self._compiled:
            for expert in self._experts:
                # dynamic: one compilation for all sizes and frame counts.
                expert.compile_repeated_blocks(dynamic=True, backend=self._backend)
            self._compiled = True

    def _use(self, attention: Attention) -> None:
        for processor in self._processors:
            # Not `set_attention_backend`: that also changes a global of diffusers, which never goes back.
            processor._attention_backend = _BACKENDS.get(attention)


def keep_compiled_in(directory: Path) -> None:
    """Have this process keep, and look for, what torch.compile makes in `directory`, unless its environment says where.

    PyTorch reads the variables when it compiles for the first time.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(directory))
    os.environ.setdefault("TRITON_CACHE_DIR", str(directory / "triton"))


def best_attention(device: torch.device, dtype: torch.dtype) -> Attention:
    """Return the fastest attention kernel that `device` and the installed packages have; log what is missing.

    Only PyTorch's own computes in float32, and cuDNN is no faster than that: 1.13 against 1.11 s, see
    docs/performance.md.
    """
    if device.type != "cuda" or dtype is torch.float32:
        return Attention.NATIVE
    if torch.cuda.get_device_capability(device)[0] == HOPPER:
        if find_spec(FLASH_3_PACKAGE) is not None:
            register_flash_attention_3()
            return Attention.FLASH_3
        logger.info("`fast` is faster with FlashAttention 3: pip install 'wan-lora-serve[hopper]'")
    return Attention.NATIVE
