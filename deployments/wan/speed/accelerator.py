"""Speed profiles: which attention kernel computes, whether blocks are compiled, multiply in FP8, or are skipped.

Example:
    accelerator = Accelerator([pipe.transformer, pipe.transformer_2], torch.device("cuda"), torch.bfloat16)
    with accelerator.running(Speed.FAST) as running:
        ...  # render
    running.used.attention  # <Attention.FLASH_3>

A render in `exact` runs the same code as if there were no other profile: its kernel is PyTorch's choice, and compiled
blocks run eagerly. Figures for every choice here are in docs/performance.md.
"""

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.attention_dispatch import AttentionBackendName
from diffusers.models.transformers.transformer_wan import WanAttention
from torch.fx.experimental import _config as shape_config

from deployments.wan.speed.attention import best_attention
from deployments.wan.speed.float8 import Float8Layers, without_float8
from deployments.wan.speed.step_cache import StepCache
from serve_app.results import Acceleration, Attention, Kernels
from serve_app.spec import Speed

logger = logging.getLogger("ray.serve.wan")

_BACKENDS: dict[Attention, AttentionBackendName] = {
    Attention.CUDNN: AttentionBackendName._NATIVE_CUDNN,
    Attention.FLASH_3: AttentionBackendName._FLASH_3,
}


@dataclass(frozen=True, slots=True)
class Running:
    """A speed profile while a render runs under it."""

    _chosen: Acceleration
    _cache: StepCache | None

    @property
    def used(self) -> Acceleration:
        """Return how the profile is carried out, with what happened so far."""
        reused = 0 if self._cache is None else self._cache.reused
        return self._chosen.model_copy(update={"passes_reused": reused})


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
        """Control the attention processors and the compilation of `experts`, WanTransformer3DModels of `dtype`.

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
        self._float8 = Float8Layers(self._experts, device)
        self._can_multiply_in_float8 = without_float8(device, dtype) is None

    @property
    def kernels(self) -> Kernels:
        """Return what every profile but `exact` has here."""
        return Kernels(attention=self._attention, compiled=self._can_compile, float8=self._can_multiply_in_float8)

    @contextmanager
    def running(
        self,
        speed: Speed,
        *,
        compilable: bool = True,
        in_place: bool = True,
        step_cache: float | None = None,
    ) -> Iterator[Running]:
        """Run the experts under `speed` while the block runs, and say how.

        `compilable`: the blocks can be compiled, which no layer with an offload hook can be. `in_place`: the weights of
        an expert stay where they are while it runs, so that FP8 copies can stand for them. `step_cache` is the
        threshold of the step cache in `turbo`; None: there is none.

        Raises:
            torch.OutOfMemoryError: there is no room for the FP8 copies of `turbo`.
        """
        fast = speed is not Speed.EXACT
        turbo = speed is Speed.TURBO
        compiled = fast and compilable and self._can_compile
        if compiled:
            self._compile()
        attention = self._attention if fast else Attention.NATIVE
        self._use(attention)
        float8 = turbo and in_place
        cache = StepCache(self._experts, step_cache) if turbo and step_cache is not None else None
        chosen = Acceleration(
            speed=speed,
            attention=attention,
            compiled=compiled,
            float8=float8,
            step_cache=None if cache is None else step_cache,
        )
        with ExitStack() as held:
            held.enter_context(torch.compiler.set_stance("default" if compiled else "force_eager"))
            # Else a first video that is square is compiled for square videos only.
            held.enter_context(
                shape_config.patch(use_duck_shape=False)  # type: ignore[attr-defined]  # torch adds it at import
            )
            if float8:
                held.enter_context(self._float8.in_place())
            if cache is not None:
                held.enter_context(cache.in_place())
            yield Running(chosen, cache)

    def copies_bytes(self, speed: Speed) -> int:
        """Return the memory that copies of weights take while a render runs under `speed`, if they are in place."""
        return self._float8.bytes if speed is Speed.TURBO else 0

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
    """Set `directory` as torch.compile's cache in this process, unless the environment names another one.

    It logs where that is.

    PyTorch reads the variables when it compiles for the first time.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(directory))
    os.environ.setdefault("TRITON_CACHE_DIR", str(directory / "triton"))
    logger.info("compiled blocks are kept in %s", os.environ["TORCHINDUCTOR_CACHE_DIR"])


def warnings_of(used: Acceleration) -> list[str]:
    """Return a warning if a render in `turbo` did not use FP8."""
    if used.speed is not Speed.TURBO or used.float8:
        return []
    return ["turbo ran without FP8: the experts' weights come to the GPU in pieces, as it does not hold them all"]
