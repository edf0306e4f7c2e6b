"""LoRA parser: from a safetensors header, in any layout, to the list of weight changes.

Every key of the file ends up in exactly one change, or the file is refused with the keys that stand in the way. With
`strict=False`, keys without a place in the model end up in `left_out` instead.

Example:
    header = read_header(path, name)
    contents = parse(header, architecture, name)
    for change in contents.changes_for(Expert.HIGH):
        ...  # a LowRank, LoKr or Difference of one parameter; the formulas are in `changes`
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from serve_app.loras.formats.adapter_config import AdapterFile, MetadataUnusable
from serve_app.loras.formats.bounds import in_turn
from serve_app.loras.formats.changes import Change, Difference, Factor, Layout, LoKr, LoraContents, LowRank
from serve_app.loras.formats.checks import SortedKeys, first_fault, unknown, wrong_amount
from serve_app.loras.formats.header import SafetensorsHeader, Tensors
from serve_app.loras.formats.keys import (
    FACTOR_ROLES,
    Group,
    Place,
    Role,
    adapter_name,
    find_place,
    split_key,
    split_unsupported,
)
from serve_app.loras.formats.metadata import Provenance, read_provenance
from serve_app.loras.formats.scales import Placed, Scaled, apply_metadata
from serve_app.loras.formats.shapes import wrong_shape
from serve_app.loras.refusals import invalid, refuse
from serve_app.models.architecture import Module, WanArchitecture
from serve_app.spec import Expert

_UNSCALED = "PEFT keeps lora_alpha in adapter_config.json; without it, alpha counts as the rank"


def parse(
    header: SafetensorsHeader,
    architecture: WanArchitecture,
    name: str,
    *,
    strict: bool = True,
    beside: AdapterFile | None = None,
) -> LoraContents:
    """Return what the file changes in a model of `architecture`; errors call the file `name`.

    `beside` is the `adapter_config.json` in the file's folder. It is used only if it certainly belongs to this file: if
    it is `certain`, or the keys are PEFT's.

    Raises:
        LoraInvalid: a tensor would be dropped or applied wrongly. Details name the tensors. Without `strict`, tensors
            without a place in the model are ignored, unless nothing would be left.
    """
    refuse(name, wrong_amount(header.tensors))
    with in_turn(header.data_offset):
        return _contents(header, architecture, name, strict, beside)


def _contents(
    header: SafetensorsHeader, architecture: WanArchitecture, name: str, strict: bool, beside: AdapterFile | None
) -> LoraContents:
    tensors = header.tensors
    found = _sort(tensors, architecture)
    refuse(name, first_fault(found, tensors, architecture))
    if strict or not found.groups:
        refuse(name, unknown(found, architecture))
    refuse(name, next((fault for group in found.groups if (fault := wrong_shape(group, tensors))), None))
    if beside is not None and found.layout is Layout.PEFT:
        beside = replace(beside, certain=True)
    scaled = _scaled(found, header, name, beside)
    contents = LoraContents(
        layout=found.layout,
        parts=_by_expert(scaled.changes),
        left_out=found.unknown,
        provenance=_provenance(found, header, architecture),
        model=architecture.title,
        remarks=scaled.remarks,
        adapter_config=beside.text if beside is not None and beside.certain else None,
    )
    return replace(contents, remarks=(*contents.remarks, _UNSCALED)) if contents.is_unscaled_peft else contents


def _provenance(found: SortedKeys, header: SafetensorsHeader, architecture: WanArchitecture) -> Provenance:
    """Return what the metadata tells; an adapter's name in the keys is one more name of the training."""
    told = read_provenance(header.metadata, architecture.title)
    adapter = adapter_name(next((key for group in found.groups for keys in group.keys.values() for key in keys), ""))
    return told if adapter is None else replace(told, names=(*told.names, adapter))


def _sort(tensors: Tensors, architecture: WanArchitecture) -> SortedKeys:
    placed: list[tuple[str, Role, Place]] = []
    without_place: list[str] = []
    unsupported: dict[str, list[str]] = {}
    for key in tensors:
        meaning = _meaning(key, architecture)
        if meaning is not None:
            placed.append((key, *meaning))
        elif (what := _unsupported(key, architecture)) is not None:
            unsupported.setdefault(what, []).append(key)
        else:
            without_place.append(key)
    layouts = Counter(place.layout for _, _, place in placed)
    layout = layouts.most_common(1)[0][0] if layouts else Layout.BARE
    experts = _Experts([place for _, _, place in placed])
    sideless = tuple(key for key, _, place in placed if experts.sided and experts.of(place) is None)
    return SortedKeys(layout, _groups(placed, experts), tuple(without_place), unsupported, sideless)


def _meaning(key: str, architecture: WanArchitecture) -> tuple[Role, Place] | None:
    split = split_key(key)
    if split is None:
        return None
    stem, role = split
    place = find_place(stem, architecture)
    return (role, place) if place is not None and _takes(place.module, role) else None


def _takes(module: Module, role: Role) -> bool:
    """Return whether the module has what a tensor of that role changes."""
    if role is Role.DIFFERENCE:
        return True
    if role is Role.BIAS_DIFFERENCE:
        return module.bias is not None
    return module.takes_low_rank


def _unsupported(key: str, architecture: WanArchitecture) -> str | None:
    split = split_unsupported(key)
    return split[1] if split is not None and find_place(split[0], architecture) is not None else None


class _Experts:
    """Tells which expert each place of one file is for."""

    def __init__(self, places: Iterable[Place]) -> None:
        self._said = {place.expert for place in places if place.expert is not None}
        self._firsts = {place.first_of for place in places if place.first_of is not None}

    @property
    def sided(self) -> bool:
        """Return whether any key names an expert."""
        return bool(self._said)

    def of(self, place: Place) -> Expert | None:
        """Return the expert of a place. A pipeline calls its two experts `transformer` and `transformer_2`."""
        is_first = place.wrapper in self._firsts and Expert.HIGH not in self._said
        return Expert.HIGH if place.expert is None and is_first else place.expert


def _groups(placed: list[tuple[str, Role, Place]], experts: _Experts) -> tuple[Group, ...]:
    found: dict[tuple[Expert | None, str], Group] = {}
    for key, role, place in placed:
        expert, module = experts.of(place), place.module
        group = found.setdefault((expert, module.parameter), Group(expert, module))
        group.keys.setdefault(role, []).append(key)
    return tuple(found.values())


def _scaled(found: SortedKeys, header: SafetensorsHeader, name: str, beside: AdapterFile | None) -> Scaled:
    changes = [
        (group.expert, group.module, change) for group in found.groups for change in _of_group(group, header.tensors)
    ]
    try:
        return apply_metadata(changes, header.metadata, beside)
    except MetadataUnusable as error:
        raise invalid(name, f"{error}; export it without, or with alpha tensors") from error


def _of_group(group: Group, tensors: Tensors) -> Iterable[Change]:
    """Yield the changes of a module whose tensors are complete and fit."""
    parameter, alpha = group.module.parameter, group.key(Role.ALPHA)
    if down := group.key(Role.DOWN):
        up = group.keys[Role.UP][0]
        yield LowRank(parameter, down, up, alpha, group.key(Role.MAGNITUDE), tensors[down].shape[0])
    if group.is_lokr:
        w1, w2 = (_factor(group, tensors, *roles) for roles in FACTOR_ROLES)
        yield LoKr(parameter, w1, w2, alpha)
    if difference := group.key(Role.DIFFERENCE):
        yield Difference(parameter, difference)
    if (difference := group.key(Role.BIAS_DIFFERENCE)) and group.module.bias:
        yield Difference(group.module.bias, difference)


def _factor(group: Group, tensors: Tensors, whole: Role, a: Role, b: Role) -> Factor:
    key = group.key(whole)
    if key is not None:
        return Factor((key,), None)
    pair = (group.keys[a][0], group.keys[b][0])
    return Factor(pair, tensors[pair[0]].shape[1])


def _by_expert(changes: Iterable[Placed]) -> dict[Expert | None, tuple[Change, ...]]:
    parts: dict[Expert | None, list[Change]] = {}
    for expert, _, change in changes:
        parts.setdefault(expert, []).append(change)
    return {expert: tuple(found) for expert, found in parts.items()}
