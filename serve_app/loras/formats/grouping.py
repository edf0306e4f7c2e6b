"""Sorts the tensors of a file by the expert and the module that they are for."""

from collections import Counter
from dataclasses import dataclass, field

from serve_app.loras.formats.changes import Layout
from serve_app.loras.formats.header import TensorInfo
from serve_app.loras.formats.names import Place, Side, find
from serve_app.loras.formats.suffixes import LOKR_ROLES, Role, split_key, split_unsupported
from serve_app.models.architecture import Module, WanArchitecture
from serve_app.spec import Expert

Tensors = dict[str, TensorInfo]


@dataclass(frozen=True, slots=True)
class Group:
    """All tensors of one module of one expert; two under one role mean the same and contradict each other."""

    expert: Expert | None
    module: Module
    keys: dict[Role, list[str]] = field(default_factory=dict)

    def key(self, role: Role) -> str | None:
        """The key with that role, if there is one; none has two any more."""
        return self.keys[role][0] if role in self.keys else None

    @property
    def is_lokr(self) -> bool:
        """Whether any of its tensors belongs to a LoKr."""
        return not LOKR_ROLES.isdisjoint(self.keys)


@dataclass(frozen=True, slots=True)
class Grouped:
    """Every key of the file, in exactly one of these places."""

    layout: Layout  # of most of them
    groups: tuple[Group, ...]  # in the order of the file
    unknown: tuple[str, ...]  # without a place in the model
    unsupported: dict[str, list[str]]  # what it is -> keys with a place, of a kind that is not applied
    sideless: tuple[str, ...]  # those that do not tell their expert, in a file in which others do


def group(tensors: Tensors, architecture: WanArchitecture) -> Grouped:
    """Sort `tensors` by what they mean in a model of `architecture`."""
    placed: list[tuple[str, Role, Place]] = []
    unknown: list[str] = []
    unsupported: dict[str, list[str]] = {}
    for key in tensors:
        found = _place(key, architecture)
        if found is not None:
            placed.append((key, *found))
        elif (what := _unsupported(key, architecture)) is not None:
            unsupported.setdefault(what, []).append(key)
        else:
            unknown.append(key)
    layouts = Counter(place.layout for _, _, place in placed)
    layout = layouts.most_common(1)[0][0] if layouts else Layout.BARE
    sides = {place.side for _, _, place in placed}
    sideless = tuple(key for key, _, place in placed if _is_sideless(place.side, sides))
    return Grouped(layout, _groups(placed, sides), tuple(unknown), unsupported, sideless)


def _place(key: str, architecture: WanArchitecture) -> tuple[Role, Place] | None:
    split = split_key(key)
    if split is None:
        return None
    stem, role = split
    place = find(stem, architecture)
    return (role, place) if place is not None and _takes(place.module, role) else None


def _takes(module: Module, role: Role) -> bool:
    """Whether the module has what such a tensor changes."""
    if role is Role.DIFFERENCE:
        return True
    if role is Role.BIAS_DIFFERENCE:
        return module.bias is not None
    return module.takes_low_rank


def _unsupported(key: str, architecture: WanArchitecture) -> str | None:
    split = split_unsupported(key)
    return split[1] if split is not None and find(split[0], architecture) is not None else None


def _is_sideless(side: Side, sides: set[Side]) -> bool:
    if sides.isdisjoint({Side.HIGH, Side.LOW}):
        return False
    return side is Side.UNSAID or (side is Side.TRANSFORMER and Side.HIGH in sides)


def _groups(placed: list[tuple[str, Role, Place]], sides: set[Side]) -> tuple[Group, ...]:
    # `transformer.` beside `transformer_2.` is how a pipeline's own two parts are called.
    transformer = Expert.HIGH if Side.LOW in sides else None
    experts = {Side.UNSAID: None, Side.TRANSFORMER: transformer, Side.HIGH: Expert.HIGH, Side.LOW: Expert.LOW}
    found: dict[tuple[Expert | None, str], Group] = {}
    for key, role, place in placed:
        expert = experts[place.side]
        module = place.module
        one = found.setdefault((expert, module.parameter), Group(expert, module))
        one.keys.setdefault(role, []).append(key)
    return tuple(found.values())
