"""Whether the tensors of each module make up whole changes, each meaning one thing."""

from collections.abc import Iterable, Sequence
from itertools import chain

from serve_app.loras.formats.grouping import Group
from serve_app.loras.formats.suffixes import FACTOR_ROLES, LOW_RANK_ROLES, Role, other_half, split_key
from serve_app.loras.refusals import Fault


def duplicates(groups: Iterable[Group]) -> Fault | None:
    """Keys that mean the same tensor of the same module."""
    found = [key for group in groups for keys in group.keys.values() if len(keys) > 1 for key in keys]
    reason = "several of its tensors mean the same part of the same layer; keep one naming and export it again"
    return Fault(reason, found) if found else None


def incomplete(groups: Iterable[Group]) -> Fault | None:
    """Halves, magnitudes, alphas and factors without what belongs to them."""
    missing = [key for group in groups for key in _missing(group)]
    reason = "these tensors are missing beside those that belong to them; export it again"
    return Fault(reason, missing) if missing else None


def contradictions(groups: Sequence[Group]) -> Fault | None:
    """Modules whose tensors are of kinds that exclude each other."""
    for find, reason in _CONTRADICTIONS:
        found = [key for group in groups for key in find(group)]
        if found:
            return Fault(reason, found)
    return None


def _missing(group: Group) -> list[str]:
    if group.is_lokr:
        return [key for whole, a, b in FACTOR_ROLES for key in _missing_factor(group, whole, a, b)]
    if LOW_RANK_ROLES.isdisjoint(group.keys):
        return []
    return _missing_halves(group)


def _missing_halves(group: Group) -> list[str]:
    down, up = group.key(Role.DOWN), group.key(Role.UP)
    if down and up:
        return []
    half = down or up
    if half:
        return [other_half(half)]
    stem = _stem(group)
    return [f"{stem}.lora_A.weight", f"{stem}.lora_B.weight"]


def _missing_factor(group: Group, whole: Role, a: Role, b: Role) -> list[str]:
    if whole in group.keys or (a in group.keys and b in group.keys):
        return []
    stem = _stem(group)
    if a not in group.keys and b not in group.keys:
        return [f"{stem}.lokr_{whole}"]
    return [f"{stem}.lokr_{role}" for role in (a, b) if role not in group.keys]


def _stem(group: Group) -> str:
    split = split_key(next(iter(group.keys.values()))[0])
    return split[0] if split else group.module.name


def _two_kinds(group: Group) -> list[str]:
    halves = [key for role in (Role.DOWN, Role.UP) if (key := group.key(role))]
    return halves if group.is_lokr else []


def _decomposed_lokr(group: Group) -> list[str]:
    magnitude = group.key(Role.MAGNITUDE)
    return [magnitude] if group.is_lokr and magnitude else []


def _factor_twice(group: Group) -> list[str]:
    return [
        key
        for whole, a, b in FACTOR_ROLES
        if whole in group.keys and (a in group.keys or b in group.keys)
        for role in (whole, a, b)
        if (key := group.key(role))
    ]


def _magnitude_and_difference(group: Group) -> list[str]:
    magnitude, difference = group.key(Role.MAGNITUDE), group.key(Role.DIFFERENCE)
    return [magnitude, difference] if magnitude and difference else []


def _on_convolution(group: Group) -> list[str]:
    if group.module.is_linear:
        return []
    return [key for role in (*chain.from_iterable(FACTOR_ROLES), Role.MAGNITUDE) if (key := group.key(role))]


_CONTRADICTIONS = (
    (_two_kinds, "it has a LoRA and a LoKr for one layer, and one alpha cannot be for both; merge one of them first"),
    (
        _decomposed_lokr,
        "it has a LoKr with a magnitude (DoRA), which is not applied; train it without (dora_wd: false)",
    ),
    (_factor_twice, "it has a factor of a LoKr both whole and as a product; export it again with one of the two"),
    (
        _magnitude_and_difference,
        "it has a DoRA and a whole difference for one weight, whose order nothing tells; export it with one of the two",
    ),
    (_on_convolution, "it has a LoKr or DoRA of a convolution, which is not applied; train it on linear layers only"),
)
