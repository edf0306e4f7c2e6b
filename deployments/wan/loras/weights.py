"""Merged weights of one expert: as loaded, wholly in the compute dtype, or with LoRAs merged into them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from deployments.wan.loras.deltas import Part, Shape, merge, merge_fused
from deployments.wan.loras.pristine import Pristine

Merges = Mapping[str, Sequence[Part]]  # by parameter


class ExpertWeights:
    """Owns the values of one expert's parameters and buffers; nothing else may change them.

    Every change starts from the original, and undoing it copies the original back. Nothing is subtracted, so no
    switch leaves a rounding error. A change may fail at any point, so a tensor is marked as changed before it is.
    """

    def __init__(self, expert: Any, dtype: torch.dtype, compute: torch.device, pristine: Pristine) -> None:
        """Take an unchanged expert that computes in `dtype`; merging runs on the device `compute`."""
        self._expert = expert
        self._dtype = dtype
        self._compute = compute
        self._pristine = pristine
        self._changed: set[str] = set()
        self._cast: set[str] = set()  # of the changed ones, those that are only the original cast to `dtype`
        self.shapes: dict[str, Shape] = {name: tuple(value.shape) for name, value in expert.named_parameters()}
        self.linear: frozenset[str] = frozenset(
            f"{name}.weight" for name, module in expert.named_modules() if isinstance(module, torch.nn.Linear)
        )
        # What diffusers keeps in float32, and the tables of the rotary embedding: AI Toolkit casts these, too.
        self._finer = {
            name: value.dtype
            for name, value in self._tensors()
            if value.is_floating_point() and value.dtype is not dtype
        }

    def become(self, merges: Merges, *, whole: bool, fused: bool = False) -> None:
        """Set every tensor to its original with `merges` added; a tensor without a merge becomes its original.

        `whole`: everything in the compute dtype, also what diffusers keeps in float32. A merge then starts from the
        original in that dtype. `fused`: merge in the dtype of the weights, see `merge_fused`.

        The expert must have no adapters and no hooks. After an error, call it again with the values that are wanted.

        Raises:
            torch.OutOfMemoryError: the device has no room for one parameter in float32, a few times.
        """
        tensors = dict(self._tensors())
        cast = self._finer.keys() - merges.keys() if whole else set()
        for name in sorted(self._changed - merges.keys() - cast):
            _write(tensors[name], self._pristine.get(name))
            self._changed.remove(name)
            self._cast.discard(name)
        for name in sorted(cast - self._cast):
            _write(tensors[name], self._before_change(name, tensors[name]).to(self._dtype))
            self._cast.add(name)
        for name, parts in merges.items():
            dtype = self._dtype if whole else self._finer.get(name, self._dtype)
            original = self._before_change(name, tensors[name])
            start = original.to(self._compute, non_blocking=True).to(dtype)
            merged = merge_fused(start, parts) if fused else merge(start, parts)
            _write(tensors[name], merged.to(dtype))

    def _before_change(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """Return the original of a tensor, and mark the tensor as changed from now on."""
        if name in self._changed:
            self._cast.discard(name)
            return self._pristine.get(name)
        self._pristine.keep(name, tensor)
        self._changed.add(name)
        return tensor.data

    def _tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        yield from self._expert.named_parameters()
        yield from self._expert.named_buffers()


def _write(tensor: torch.Tensor, value: torch.Tensor) -> None:
    if tensor.dtype is value.dtype:
        tensor.data.copy_(value)
    else:
        tensor.data = value.to(tensor.device, copy=True)
