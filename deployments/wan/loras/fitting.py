"""Whether every change of a LoRA lands on a parameter of the expert that it fits."""

from collections.abc import Iterable, Mapping
from math import prod
from typing import assert_never

from deployments.wan.loras.deltas import Tensors
from serve_app.errors import LoraNotLoaded
from serve_app.loras.formats import Change, Difference, Factor, LoKr, LoraContents, LowRank
from serve_app.spec import LoraFile

Shape = tuple[int, ...]

_NAMED_AT_MOST = 16  # in an error; a full-size file has 800 tensors
_MATRIX = 2  # dimensions; a weight that changes by a product has as many at least


def check_fit(lora: LoraFile, changes: Iterable[Change], tensors: Tensors, shapes: Mapping[str, Shape]) -> None:
    """`shapes` are those of the expert's parameters.

    Raises:
        LoraNotLoaded: there is nothing to apply, a parameter does not exist, or has another shape; named.
    """
    changes = list(changes)
    if not changes:
        raise not_loaded(lora, f"it holds nothing for the {lora.expert.value} noise expert")
    missing = [change.parameter for change in changes if change.parameter not in shapes]
    if missing:
        raise not_loaded(lora, "it changes parameters that the expert does not have", missing)
    misfits = [change.parameter for change in changes if not _fits(change, tensors, shapes[change.parameter])]
    if misfits:
        raise not_loaded(lora, "it was trained on a model of another size", misfits)


def check_complete(lora: LoraFile, contents: LoraContents, present: Iterable[str]) -> None:
    """`present` are the keys of the file.

    Raises:
        LoraNotLoaded: a tensor is neither used nor left out knowingly, or a change lacks one; named.
    """
    used = {key for change in contents.changes() for key in change.keys}
    odd = (used | set(contents.left_out)) ^ set(present)
    if odd:
        raise not_loaded(lora, "not every tensor of it has exactly one place", sorted(odd))


def not_loaded(lora: LoraFile, reason: str, names: Iterable[str] = ()) -> LoraNotLoaded:
    """The error for `lora` that gives `reason` and the first of `names`, of tensors or parameters."""
    named = list(names)
    example = f" (first of {len(named)}: {named[0]})" if named else ""
    return LoraNotLoaded(
        f"LoRA '{lora.reference}' cannot be applied to the {lora.expert.value} noise expert: {reason}{example}",
        {
            "path": lora.reference,
            "transformer": lora.expert.value,
            "keys": named[:_NAMED_AT_MOST],
            "key_count": len(named),
        },
    )


def _fits(change: Change, tensors: Tensors, shape: Shape) -> bool:
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
    """Of the matrix, or of the product of two; (0, 0), which fits nothing, where there is none."""
    first, last = tensors[factor.keys[0]].shape, tensors[factor.keys[-1]].shape
    if len(first) != _MATRIX or len(last) != _MATRIX:
        return 0, 0
    multiply = len(factor.keys) == 1 or first[1] == last[0]
    return (first[0], last[1]) if multiply else (0, 0)
