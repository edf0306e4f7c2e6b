"""From the header of a LoRA file, in any layout, to the list of what it changes.

Every key of the file ends up in exactly one change, or the file is refused with the keys that stand in the way; with
`strict=False` keys without a place in the model end up in `left_out` instead. Which names are understood is in
`names` (modules and what stands before them) and `suffixes` (tensors).

No alpha means c = 1: AI Toolkit trains with alpha = rank where it saves none, and so do diffusers and ComfyUI read it.
"""

from collections.abc import Callable, Iterable

from serve_app.errors import LoraInvalid
from serve_app.loras.formats.adapter_metadata import METADATA_KEY, Unusable
from serve_app.loras.formats.changes import Change, Difference, Factor, LoKr, LoraContents, LowRank
from serve_app.loras.formats.completeness import contradictions, duplicates, incomplete
from serve_app.loras.formats.floats import FORMATS
from serve_app.loras.formats.foreign import recognise, recognise_shapes
from serve_app.loras.formats.grouping import Group, Grouped, Tensors, group
from serve_app.loras.formats.header import SafetensorsHeader
from serve_app.loras.formats.scales import Placed, apply_metadata
from serve_app.loras.formats.shapes import wrong_shape
from serve_app.loras.formats.suffixes import FACTOR_ROLES, Role
from serve_app.loras.refusals import Fault, invalid, refuse
from serve_app.models.architecture import WanArchitecture
from serve_app.spec import Expert

# Both experts of A14B have 2190 parameters, each with a handful of tensors at most. Hostile headers end here.
_MOST_TENSORS = 20_000
_MOST_CHARACTERS = 4_000_000  # of all names together
_LENIENT = 'with "strict": false they are left out'


def parse(header: SafetensorsHeader, architecture: WanArchitecture, name: str, *, strict: bool = True) -> LoraContents:
    """What the file changes in a model of `architecture`; `name` is the file in errors.

    Raises:
        LoraInvalid: a tensor would be dropped or applied wrongly. Details name the tensors. Without `strict`, tensors
            that the model has no place for are left out, unless that leaves nothing.
    """
    tensors = header.tensors
    refuse(name, _wrong_amount(tensors))
    grouped = group(tensors, architecture)
    for check in _CHECKS:
        refuse(name, check(grouped, tensors, architecture))
    if strict or not grouped.groups:
        refuse(name, _unknown(grouped, architecture))
    refuse(name, next((fault for one in grouped.groups if (fault := wrong_shape(one, tensors))), None))
    return LoraContents(grouped.layout, _parts(_changes(grouped, header, name)), grouped.unknown)


def _wrong_amount(tensors: Tensors) -> Fault | None:
    if not tensors:
        return Fault("it holds no tensors; export it again")
    if len(tensors) > _MOST_TENSORS or sum(map(len, tensors)) > _MOST_CHARACTERS:
        return Fault(f"it holds {len(tensors)} tensors, with names too many or too long for a LoRA of this model")
    return None


def _shapes_of_another(_: Grouped, tensors: Tensors, architecture: WanArchitecture) -> Fault | None:
    return recognise_shapes(tensors, architecture)


def _unsupported(grouped: Grouped, *_: object) -> Fault | None:
    return next((Fault(f"it holds {what}", keys) for what, keys in grouped.unsupported.items()), None)


def _wrong_dtype(grouped: Grouped, tensors: Tensors, _: WanArchitecture) -> Fault | None:
    placed = (key for one in grouped.groups for keys in one.keys.values() for key in keys)
    wrong = {key: tensors[key].dtype for key in placed if tensors[key].dtype not in FORMATS}
    reason = f"it has tensors of dtype {', '.join(sorted(set(wrong.values())))}; export it as {', '.join(FORMATS)}"
    return Fault(reason, list(wrong)) if wrong else None


def _sideless(grouped: Grouped, *_: object) -> Fault | None:
    reason = (
        "some of its tensors say which expert they are for (transformer_1, transformer_2) and these do not; "
        "export a file for each expert"
    )
    return Fault(reason, grouped.sideless) if grouped.sideless else None


def _duplicates(grouped: Grouped, *_: object) -> Fault | None:
    return duplicates(grouped.groups)


def _incomplete(grouped: Grouped, *_: object) -> Fault | None:
    return incomplete(grouped.groups)


def _contradictions(grouped: Grouped, *_: object) -> Fault | None:
    return contradictions(grouped.groups)


# In order: the first that finds something speaks. These hold with and without `strict`.
_CHECKS: tuple[Callable[[Grouped, Tensors, WanArchitecture], Fault | None], ...] = (
    _shapes_of_another,
    _unsupported,
    _wrong_dtype,
    _duplicates,
    _sideless,
    _contradictions,
    _incomplete,
)


def _unknown(grouped: Grouped, architecture: WanArchitecture) -> Fault | None:
    if not grouped.unknown:
        return None
    another = recognise(grouped.unknown)
    if another is None:
        reason = (
            "it has tensors for which this model has no place; expected are layers of Wan 2.2 T2V A14B with blocks 0 "
            f"to {architecture.num_layers - 1}"
        )
        another = Fault(reason, grouped.unknown)
    return Fault(f"{another.reason}; {_LENIENT}", another.keys) if grouped.groups else another


def _changes(grouped: Grouped, header: SafetensorsHeader, name: str) -> list[Placed]:
    changes = [(one.expert, one.module, change) for one in grouped.groups for change in _of_group(one, header.tensors)]
    try:
        return apply_metadata(changes, header.metadata)
    except Unusable as error:
        raise _metadata_refused(name, error) from error


def _metadata_refused(name: str, error: Unusable) -> LoraInvalid:
    return invalid(name, f"its metadata entry {METADATA_KEY!r} {error}; export it without the entry, or with alphas")


def _of_group(one: Group, tensors: Tensors) -> Iterable[Change]:
    """The changes of a module whose tensors are complete and fit."""
    parameter, alpha = one.module.parameter, one.key(Role.ALPHA)
    if down := one.key(Role.DOWN):
        up = one.keys[Role.UP][0]
        yield LowRank(parameter, down, up, alpha, one.key(Role.MAGNITUDE), tensors[down].shape[0])
    if one.is_lokr:
        w1, w2 = (_factor(one, tensors, *roles) for roles in FACTOR_ROLES)
        yield LoKr(parameter, w1, w2, alpha)
    if difference := one.key(Role.DIFFERENCE):
        yield Difference(parameter, difference)
    if (difference := one.key(Role.BIAS_DIFFERENCE)) and one.module.bias:
        yield Difference(one.module.bias, difference)


def _factor(one: Group, tensors: Tensors, whole: Role, a: Role, b: Role) -> Factor:
    key = one.key(whole)
    if key is not None:
        return Factor((key,), None)
    pair = (one.keys[a][0], one.keys[b][0])
    return Factor(pair, tensors[pair[0]].shape[1])


def _parts(changes: Iterable[Placed]) -> dict[Expert | None, tuple[Change, ...]]:
    parts: dict[Expert | None, list[Change]] = {}
    for expert, _, change in changes:
        parts.setdefault(expert, []).append(change)
    return {expert: tuple(found) for expert, found in parts.items()}
