"""Measurement of memory: free bytes, the size of weights, and the peak of a render."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from deployments.wan.memory.host import available_bytes
from deployments.wan.memory.planner import FreeMemory, WeightBytes


def free_memory(device: torch.device) -> FreeMemory:
    """Measure what is free now, on the device and in host memory."""
    gpu = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
    return FreeMemory(gpu, available_bytes())


def weight_bytes(pipe: Any, experts: Sequence[str]) -> WeightBytes:
    """Return the size of each component's weights; `experts` names the components that LoRAs change.

    Weights on the meta device count like others.
    """
    modules = {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    return bytes_of(modules, experts)


def bytes_of(modules: dict[str, Any], experts: Sequence[str]) -> WeightBytes:
    """Return the size of the weights of these components; see `weight_bytes`."""
    blocks = {name: [_bytes(block) for block in modules[name].blocks] for name in experts}
    sizes = {name: _bytes(part) for name, part in modules.items()}
    return WeightBytes(
        sizes,
        tuple(experts),
        block=max((size for of_expert in blocks.values() for size in of_expert), default=0),
        outside=sum(sizes[name] - sum(blocks[name]) for name in experts),
    )


def _bytes(module: torch.nn.Module) -> int:
    return sum(weight.nbytes for weight in module.parameters())


@dataclass(frozen=True, slots=True)
class Peaks:
    """Bytes in tensors on a GPU at a render's highest; None on a CPU, which does not count them."""

    whole: int | None = None
    activations: int | None = None  # beyond what was there before the first step


class PeakMeter:
    """Measures the peak of one render after the other."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before = 0  # peak up to the first step
        self._resting = 0

    @property
    def counts(self) -> bool:
        """Return whether the device counts its memory."""
        return self._device.type == "cuda"

    def start(self) -> None:
        """Start a new measurement."""
        if self.counts:
            torch.cuda.reset_peak_memory_stats(self._device)

    def rest(self) -> None:
        """Record the bytes in use before the first step: weights, and active LoRAs."""
        if self.counts:
            self._before = torch.cuda.max_memory_allocated(self._device)
            self._resting = torch.cuda.memory_allocated(self._device)
            torch.cuda.reset_peak_memory_stats(self._device)

    def read(self) -> Peaks:
        """Return the peaks since `start`, and since `rest`."""
        if not self.counts:
            return Peaks()
        since = torch.cuda.max_memory_allocated(self._device)
        return Peaks(max(self._before, since), max(0, since - self._resting))
