"""Validation of a LoRA file by its keys, dtypes and sizes: everything that makes it unusable.

Every check returns a `Fault` with the keys of the tensors, or None. `first_fault` runs the checks that always apply, in
order. `unknown` finds tensors without a place in the model, which a lenient parse ignores. `shapes` checks the shapes
of tensors that have a place.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import chain

from serve_app.loras.formats.bounds import MOST_TENSORS
from serve_app.loras.formats.changes import Layout
from serve_app.loras.formats.dtypes import SCALAR_DTYPES, WEIGHT_DTYPES
from serve_app.loras.formats.header import Tensors
from serve_app.loras.formats.keys import FACTOR_ROLES, LOW_RANK_ROLES, Group, Role, other_half, split_key
from serve_app.loras.refusals import Fault
from serve_app.models.architecture import WanArchitecture
from serve_app.models.foreign import I2V_CHANNELS, WAN_OF_WIDTH, block_width, recognise_layers, takes_images

_MOST_CHARACTERS = 4_000_000  # of all keys together
_LENIENT = 'with "strict": false they are left out'


@dataclass(frozen=True, slots=True)
class SortedKeys:
    """The keys of a file, each in exactly one of `groups`, `unknown` and `unsupported`."""

    layout: Layout  # of most of the keys
    groups: tuple[Group, ...]  # in the order of the file
    unknown: tuple[str, ...]  # without a place in the model
    unsupported: dict[str, list[str]]  # with a place, but of a kind that is not applied; by what it is
    sideless: tuple[str, ...]  # keys in `groups` that name no expert, in a file in which other keys do


def wrong_amount(tensors: Tensors) -> Fault | None:
    """Return the fault of a file with no tensors, or with more than a LoRA has; the other checks rely on this one."""
    if not tensors:
        return Fault("it holds no tensors; export it again")
    if len(tensors) > MOST_TENSORS or sum(map(len, tensors)) > _MOST_CHARACTERS:
        return Fault(f"it holds {len(tensors)} tensors, with names too many or too long for a LoRA of this model")
    return None


def first_fault(found: SortedKeys, tensors: Tensors, architecture: WanArchitecture) -> Fault | None:
    """Return the first fault that makes the file unusable, whether or not the parse is strict."""
    return next((fault for check in _CHECKS if (fault := check(found, tensors, architecture))), None)


def unknown(found: SortedKeys, architecture: WanArchitecture) -> Fault | None:
    """Return the fault of tensors that the model has no place for, naming the model that they come from if known."""
    if not found.unknown:
        return None
    foreign = recognise_layers(found.unknown)
    if foreign is not None:
        fault = Fault(_looks_like(foreign.model, architecture), foreign.names)
    else:
        reason = (
            f"it has tensors for which this model has no place; expected are layers of {architecture.title} with "
            f"blocks 0 to {architecture.num_layers - 1}"
        )
        fault = Fault(reason, found.unknown)
    return Fault(f"{fault.reason}; {_LENIENT}", fault.keys) if found.groups else fault


def _looks_like(model: str, architecture: WanArchitecture) -> str:
    return f"this looks like a LoRA for {model}, not for {architecture.title}"


def _other_sizes(_: SortedKeys, tensors: Tensors, architecture: WanArchitecture) -> Fault | None:
    """Return the fault of a LoRA whose sizes are those of another member of the Wan family."""
    for key, info in tensors.items():
        layer, role = split_key(key) or ("", None)
        if role not in (Role.DOWN, Role.DIFFERENCE):  # those whose last dimensions are the layer's input
            continue
        width = block_width(layer, info.shape)
        if width in WAN_OF_WIDTH and width != architecture.dim:
            reason = (
                f"this looks like a LoRA for {WAN_OF_WIDTH[width]} (width {width}); "
                f"the model that this server runs has width {architecture.dim}"
            )
            return Fault(reason, [key])
        if takes_images(layer, info.shape, architecture):
            model = f"Wan I2V (its patch embedding takes {I2V_CHANNELS} channels)"
            return Fault(_looks_like(model, architecture), [key])
    return None


def _unsupported(found: SortedKeys, *_: object) -> Fault | None:
    """Return the fault of kinds of changes that are not applied, such as LoHa."""
    return next((Fault(f"it holds {what}", keys) for what, keys in found.unsupported.items()), None)


def _wrong_dtype(found: SortedKeys, tensors: Tensors, _: WanArchitecture) -> Fault | None:
    placed = ((role, key) for group in found.groups for role, keys in group.keys.items() for key in keys)
    wrong = {key: tensors[key].dtype for role, key in placed if tensors[key].dtype not in _dtypes(role)}
    dtypes = ", ".join(sorted(set(wrong.values())))
    reason = f"it has tensors of dtype {dtypes}; export it as {', '.join(WEIGHT_DTYPES)}"
    return Fault(reason, list(wrong)) if wrong else None


def _dtypes(role: Role) -> Collection[str]:
    return SCALAR_DTYPES if role is Role.ALPHA else WEIGHT_DTYPES


def _duplicates(found: SortedKeys, *_: object) -> Fault | None:
    """Return the fault of keys that mean the same tensor of the same module."""
    keys = [key for group in found.groups for keys in group.keys.values() if len(keys) > 1 for key in keys]
    reason = "several of its tensors mean the same part of the same layer; keep one naming and export it again"
    return Fault(reason, keys) if keys else None


def _sideless(found: SortedKeys, *_: object) -> Fault | None:
    """Return the fault of keys that leave open which expert they are for, in a file in which others tell."""
    reason = (
        "some of its tensors say which expert they are for (transformer_2, low_noise_model) and these do not; "
        "export a file for each expert"
    )
    return Fault(reason, found.sideless) if found.sideless else None


def _contradictions(found: SortedKeys, *_: object) -> Fault | None:
    """Return the fault of modules whose tensors are of kinds that exclude each other."""
    for find, reason in _CONTRADICTIONS:
        keys = [key for group in found.groups for key in find(group)]
        if keys:
            return Fault(reason, keys)
    return None


def _incomplete(found: SortedKeys, *_: object) -> Fault | None:
    """Return the fault of halves, magnitudes, alphas and factors that lack what belongs to them."""
    missing = [key for group in found.groups for key in _missing(group)]
    reason = "these tensors are missing beside those that belong to them; export it again"
    return Fault(reason, missing) if missing else None


# The order decides which reason a file with several faults gets.
_CHECKS: tuple[Callable[[SortedKeys, Tensors, WanArchitecture], Fault | None], ...] = (
    _other_sizes,
    _unsupported,
    _wrong_dtype,
    _duplicates,
    _sideless,
    _contradictions,
    _incomplete,
)


def _missing(group: Group) -> list[str]:
    """Return the keys that the module would need for its changes to be complete."""
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


# Tensors of one module that exclude each other, and what to do about it.
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
