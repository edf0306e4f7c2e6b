"""What a LoRA adds to one parameter; the formulas are those of `serve_app.loras.formats.changes`, in float32."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

import torch

from serve_app.loras.formats import Change, Difference, Factor, LoKr, LowRank

Tensors = Mapping[str, torch.Tensor]  # of a LoRA file, by their keys


@dataclass(frozen=True, slots=True)
class Part:
    """One change of a file, the tensors that it names, and how strongly it acts."""

    change: Change
    tensors: Tensors
    multiplier: float


def merge(pristine: torch.Tensor, parts: Sequence[Part]) -> torch.Tensor:
    """`pristine` plus what each of `parts` (at least one) adds to it: float32, on its device, rounded in their order.

    For plain LoRA this is what AI Toolkit computes for a preview: W.float() + m * (up.float() @ down.float()), the
    product in float32 and each operation rounded (`merge_in` in its toolkit/network_mixins.py).
    """
    base = pristine.float()
    merged = base
    for part in parts:
        merged = _added(base, part).add_(merged)
    return merged


def _added(base: torch.Tensor, part: Part) -> torch.Tensor:
    """A new tensor, which the caller may write to."""
    match part.change:
        case LowRank():
            return _low_rank(base, part.change, part)
        case LoKr():
            return _kronecker(base, part.change, part)
        case Difference():
            return _load(part, part.change.key, base.device).reshape(base.shape) * part.multiplier
        case _:
            assert_never(part.change)


def _low_rank(base: torch.Tensor, change: LowRank, part: Part) -> torch.Tensor:
    up, down = (_load(part, key, base.device).flatten(1) for key in (change.up, change.down))
    delta = (up @ down).reshape(base.shape).mul_(part.multiplier * scale(change, part.tensors))
    if change.magnitude is None:
        return delta
    return _rescaled(delta.add_(base), _load(part, change.magnitude, base.device)).sub_(base)


def _rescaled(changed: torch.Tensor, magnitude: torch.Tensor) -> torch.Tensor:
    """Each row, or each input column, at the length that `magnitude` gives it; one of length 0 has no direction."""
    by_column = magnitude.ndim > 1 and magnitude.shape[0] == 1 and changed.shape[0] != 1
    others = [dimension for dimension in range(changed.ndim) if dimension != int(by_column)]
    length = torch.linalg.vector_norm(changed, dim=others, keepdim=True)
    length.clamp_(min=torch.finfo(length.dtype).tiny)
    rescaled: torch.Tensor = changed * (magnitude.reshape(length.shape) / length)
    return rescaled


def _kronecker(base: torch.Tensor, change: LoKr, part: Part) -> torch.Tensor:
    w1, w2 = (_product(factor, part, base.device) for factor in (change.w1, change.w2))
    delta: torch.Tensor = torch.kron(w1, w2).reshape(base.shape)
    return delta.mul_(part.multiplier * scale(change, part.tensors))


def _product(factor: Factor, part: Part, device: torch.device) -> torch.Tensor:
    first, *second = (_load(part, key, device) for key in factor.keys)
    return first @ second[0] if second else first


def scale(change: LowRank | LoKr, tensors: Tensors) -> float:
    """c of `change`, whose alpha, where it has one, is a tensor with one element in host memory."""
    if isinstance(change, LowRank) and change.scale is not None:
        return change.scale
    if change.alpha is None or change.rank is None:
        return 1.0
    return float(tensors[change.alpha]) / change.rank


def _load(part: Part, key: str, device: torch.device) -> torch.Tensor:
    # In this order: fewer bytes over the bus, and the conversion on the faster device.
    return part.tensors[key].to(device, non_blocking=True).float()
