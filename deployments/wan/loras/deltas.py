"""Weight deltas (LoRA merging): what a change of a LoRA file adds to one parameter, in float32, and whether it fits.

The formulas are those of `serve_app.loras.formats.changes`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import assert_never

import torch

from serve_app.loras.formats import Change, Difference, Factor, LoKr, LowRank

Tensors = Mapping[str, torch.Tensor]  # of a LoRA file, by their keys
Shape = tuple[int, ...]

_MATRIX = 2  # dimensions; a weight that changes by a product has as many at least


@dataclass(frozen=True, slots=True)
class Part:
    """One change of a file, its tensors, and its multiplier."""

    change: Change
    tensors: Tensors
    multiplier: float


def merge(pristine: torch.Tensor, parts: Sequence[Part]) -> torch.Tensor:
    """Return `pristine` plus what each of `parts` (at least one) adds: float32, on its device, rounded in their order.

    For plain LoRA this is what AI Toolkit computes for a preview: W.float() + m * (up.float() @ down.float()), the
    product in float32 and each operation rounded (`merge_in` in its toolkit/network_mixins.py).
    """
    base = pristine.float()
    merged = base
    for part in parts:
        merged = _added(base, part).add_(merged)
    return merged


def merge_fused(pristine: torch.Tensor, parts: Sequence[Part]) -> torch.Tensor:
    """Return what `merge` returns, but in the dtype of `pristine`, which makes a switch several times as fast.

    A plain LoRA takes one fused product, W + c * (up @ down): the factors are cast to that dtype, and the kernel adds
    in float32 and rounds once. What is not plain LoRA is merged as `merge` does it.
    """
    if not all(isinstance(part.change, LowRank) and part.change.magnitude is None for part in parts):
        return merge(pristine, parts).to(pristine.dtype)
    merged = pristine.flatten(1)
    for part in parts:
        if isinstance(part.change, LowRank):
            up, down = (
                part.tensors[key].to(pristine.device, non_blocking=True).to(pristine.dtype).flatten(1)
                for key in (part.change.up, part.change.down)
            )
            factor = part.multiplier * scale(part.change, part.tensors)
            merged = torch.addmm(merged, up, down, alpha=factor)
    return merged.reshape(pristine.shape)


def _added(base: torch.Tensor, part: Part) -> torch.Tensor:
    """Return what `part` adds, in a new tensor that the caller may write to."""
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
    """Scale each row, or each input column, to the length in `magnitude`; one of length 0 has no direction."""
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
    """Return c of `change`, whose alpha, if it has one, is a tensor with one element in host memory."""
    if change.scale is not None:
        return change.scale
    if change.alpha is None or change.rank is None:
        return 1.0
    return float(tensors[change.alpha]) / change.rank


def _load(part: Part, key: str, device: torch.device) -> torch.Tensor:
    # In this order: fewer bytes over the bus, and the conversion on the faster device.
    return part.tensors[key].to(device, non_blocking=True).float()


def fits(change: Change, tensors: Tensors, shape: Shape) -> bool:
    """Return whether `change` can be added to a parameter of `shape`."""
    match change:
        case LowRank():
            return len(shape) >= _MATRIX and _low_rank_fits(change, tensors, shape)
        case LoKr():
            first, second = (_factor_shape(factor, tensors) for factor in (change.w1, change.w2))
            product = tuple(one * other for one, other in zip(first, second, strict=True))
            return product == (shape[0], prod(shape[1:]))
        case Difference():
            return tensors[change.key].numel() == prod(shape)
        case _:
            assert_never(change)


def _low_rank_fits(change: LowRank, tensors: Tensors, shape: Shape) -> bool:
    up, down = tensors[change.up].shape, tensors[change.down].shape
    outputs, inputs = shape[0], prod(shape[1:])
    fits = (up[0], prod(up[1:]), down[0], prod(down[1:])) == (outputs, change.rank, change.rank, inputs)
    if change.magnitude is None:
        return fits
    magnitude = tensors[change.magnitude]
    by_column = magnitude.ndim > 1 and magnitude.shape[0] == 1 and shape[0] != 1
    return fits and magnitude.numel() == shape[int(by_column)]


def _factor_shape(factor: Factor, tensors: Tensors) -> Shape:
    """Return the shape of the matrix, or of the product of two; (0, 0), which fits nothing, if there is none."""
    first, last = tensors[factor.keys[0]].shape, tensors[factor.keys[-1]].shape
    if len(first) != _MATRIX or len(last) != _MATRIX:
        return 0, 0
    multiply = len(factor.keys) == 1 or first[1] == last[0]
    return (first[0], last[1]) if multiply else (0, 0)
