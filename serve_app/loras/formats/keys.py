"""State-dict keys: which module of the model a tensor belongs to, and which role it plays in a change.

A key is a prefix, the name of a module, and a suffix: `diffusion_model.` `blocks.0.self_attn.q` `.lora_A.weight`. The
suffix tells the `Role`, the rest the `Place`. The keys of one file may follow different conventions. A new layout is an
entry in `_PREFIXES` or `_UNDERSCORED`, and its suffixes in `_SUFFIXES`.

Sources of the suffixes: kohya and musubi-tuner (lora_down, lora_up, alpha, dora_scale), PEFT (lora_A, lora_B,
lora_magnitude_vector, also with an adapter's name), diffusers (lora.down, lora.up), AI Toolkit (magnitude), LyCORIS
(lokr_*, diff, w_norm, b_norm) and ComfyUI's comfy/weight_adapter, which reads them all (diff, diff_b).
"""

import re
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto
from functools import lru_cache
from itertools import chain

from serve_app.loras.formats.changes import Layout
from serve_app.models.architecture import Module, WanArchitecture
from serve_app.spec import Expert


class Role(StrEnum):
    """What a tensor is for its module."""

    DOWN = "down"
    UP = "up"
    ALPHA = "alpha"
    MAGNITUDE = "magnitude"
    W1 = "w1"
    W1_A = "w1_a"
    W1_B = "w1_b"
    W2 = "w2"
    W2_A = "w2_a"
    W2_B = "w2_b"
    DIFFERENCE = "difference"  # of the weight, or of a table
    BIAS_DIFFERENCE = "bias_difference"


LOW_RANK_ROLES = frozenset({Role.DOWN, Role.UP, Role.ALPHA, Role.MAGNITUDE})
# The roles of each factor of a LoKr: the whole factor, or two matrices whose product it is.
FACTOR_ROLES = ((Role.W1, Role.W1_A, Role.W1_B), (Role.W2, Role.W2_A, Role.W2_B))
LOKR_ROLES = frozenset(chain.from_iterable(FACTOR_ROLES))

_ADAPTER = r"(?:\.[^.]+)?"  # PEFT's state dicts carry the adapter's name before the last part
_SUFFIXES = {
    Role.DOWN: rf"lora_A{_ADAPTER}\.weight|lora_down\.weight|lora\.down\.weight",
    Role.UP: rf"lora_B{_ADAPTER}\.weight|lora_up\.weight|lora\.up\.weight",
    Role.ALPHA: r"alpha",
    Role.MAGNITUDE: rf"dora_scale|magnitude|lora_magnitude_vector{_ADAPTER}(?:\.weight)?",
    Role.W1: r"lokr_w1",
    Role.W1_A: r"lokr_w1_a",
    Role.W1_B: r"lokr_w1_b",
    Role.W2: r"lokr_w2",
    Role.W2_A: r"lokr_w2_a",
    Role.W2_B: r"lokr_w2_b",
    Role.DIFFERENCE: r"diff|w_norm",
    Role.BIAS_DIFFERENCE: r"diff_b|b_norm",
}
_KEY = re.compile(
    r"(?P<stem>.+?)\.(?:" + "|".join(f"(?P<{role.name}>{suffix})" for role, suffix in _SUFFIXES.items()) + ")"
)

_REEXPORT = "train or export it as a LoRA, DoRA or LoKr"
_UNSUPPORTED = {
    r"lora_mid(?:\.weight)?|lokr_t[12]": "Tucker decompositions; train it without (use_tucker or use_cp: false)",
    r"hada_\w+": f"a LoHa; {_REEXPORT}",
    r"(?:oft|boft)_\w+(?:\.[^.]+)*": f"an OFT; {_REEXPORT}",
    r"(?:a1|a2|b1|b2|bm1|bm2)\.weight": f"a GLoRA; {_REEXPORT}",
    r"set_weight|reshape_weight": f"weights that replace or resize the model's own; {_REEXPORT}",
    rf"(?:lora_[AB]{_ADAPTER}|lora_down|lora_up|lora\.down|lora\.up)\.bias": (
        "biases of the LoRA's own halves (PEFT's lora_bias); train it without"
    ),
    r"weight|bias": f"whole weights of the model and not changes to them; {_REEXPORT}",
}
_UNSUPPORTED_KEY = re.compile(
    r"(?P<stem>.+?)\.(?:" + "|".join(f"(?P<R{number}>{suffix})" for number, suffix in enumerate(_UNSUPPORTED)) + ")"
)
_UNSUPPORTED_REASONS = tuple(_UNSUPPORTED.values())

LONGEST_KEY = 500
"""Characters. Longer keys are unknown: no convention comes near, and on a hostile key some patterns take quadratic time
(ReDoS)."""

_HALVES = (("lora_A", "lora_B"), ("lora_down", "lora_up"), ("lora.down", "lora.up"))


def split_key(key: str) -> tuple[str, Role] | None:
    """Split a key into what stands before its suffix and the tensor's role. Return None where the suffix is unknown."""
    match = _KEY.fullmatch(key) if len(key) <= LONGEST_KEY else None
    if match is None or match.lastgroup is None:
        return None
    return match["stem"], Role[match.lastgroup]


def split_unsupported(key: str) -> tuple[str, str] | None:
    """Split the key of a tensor of a kind that is not applied: what stands before its suffix, and what to do about it.

    Return None where the suffix is unknown.
    """
    match = _UNSUPPORTED_KEY.fullmatch(key) if len(key) <= LONGEST_KEY else None
    if match is None or match.lastgroup is None:
        return None
    return match["stem"], _UNSUPPORTED_REASONS[int(match.lastgroup[1:])]


def other_half(key: str) -> str:
    """Return the key under which the other half of a low-rank pair is expected beside `key`, itself one half."""
    stem, _, ending = key.rpartition(".lora")
    ending = f"lora{ending}"
    for down, up in _HALVES:
        if ending.startswith(down):
            return f"{stem}.{up}{ending.removeprefix(down)}"
        if ending.startswith(up):
            return f"{stem}.{down}{ending.removeprefix(up)}"
    raise ValueError(key)


class Component(Enum):
    """Which component of the pipeline, and so which expert, a key names."""

    UNSAID = auto()
    TRANSFORMER = auto()  # `transformer.`: the high-noise expert where the file has a `transformer_2.`, else unsaid
    HIGH = auto()
    LOW = auto()


@dataclass(frozen=True, slots=True)
class Place:
    """What a key without its suffix means."""

    module: Module
    component: Component
    layout: Layout


# Prefixes in this order, each group at most once: PEFT's, then a checkpoint's, then the pipeline's component.
_PREFIXES = (
    {"base_model.model.": Layout.PEFT},
    {"model.diffusion_model.": Layout.AI_TOOLKIT, "diffusion_model.": Layout.AI_TOOLKIT},
)
_COMPONENTS = {"transformer.": Component.TRANSFORMER, "transformer_1.": Component.HIGH, "transformer_2.": Component.LOW}
_UNDERSCORED = {"lora_unet_": Layout.KOHYA, "lycoris_": Layout.LYCORIS}
# Without "transformer_": "lora_unet_transformer_blocks_..." belongs to other models.
_UNDERSCORED_COMPONENTS = {"transformer_1_": Component.HIGH, "transformer_2_": Component.LOW}


def find_place(stem: str, architecture: WanArchitecture) -> Place | None:
    """Return what `stem`, a key without its suffix, means in a model of `architecture`; None if it means nothing."""
    for prefix, layout in _UNDERSCORED.items():
        if stem.startswith(prefix):
            return _find_underscored(stem.removeprefix(prefix), layout, architecture)
    return _find_dotted(stem, architecture)


def _find_underscored(rest: str, layout: Layout, architecture: WanArchitecture) -> Place | None:
    part = next((part for part in _UNDERSCORED_COMPONENTS if rest.startswith(part)), "")
    module = _names(architecture).underscored.get(rest.removeprefix(part).replace(".", "_"))
    return Place(module, _UNDERSCORED_COMPONENTS.get(part, Component.UNSAID), layout) if module else None


def _find_dotted(stem: str, architecture: WanArchitecture) -> Place | None:
    layout = None
    for prefixes in _PREFIXES:
        prefix = next((prefix for prefix in prefixes if stem.startswith(prefix)), "")
        stem = stem.removeprefix(prefix)
        layout = layout or prefixes.get(prefix)
    part = next((part for part in _COMPONENTS if stem.startswith(part)), "")
    module = _names(architecture).dotted.get(stem.removeprefix(part))
    if module is None:
        return None
    return Place(module, _COMPONENTS.get(part, Component.UNSAID), layout or (Layout.DIFFUSERS if part else Layout.BARE))


@dataclass(frozen=True, slots=True)
class _Names:
    dotted: dict[str, Module]
    underscored: dict[str, Module]


@lru_cache(maxsize=4)
def _names(architecture: WanArchitecture) -> _Names:
    # Every module under both of its names. A norm is found under either number, because only one has parameters.
    dotted = {name: module for module in architecture.modules for name in (module.name, module.original)}
    return _Names(dotted, {name.replace(".", "_"): module for name, module in dotted.items()})


@dataclass(frozen=True, slots=True)
class Group:
    """All keys for one module of one expert, by their roles. Two keys under one role contradict each other."""

    expert: Expert | None
    module: Module
    keys: dict[Role, list[str]] = field(default_factory=dict)

    def key(self, role: Role) -> str | None:
        """Return the first key with that role, or None."""
        return self.keys[role][0] if role in self.keys else None

    @property
    def is_lokr(self) -> bool:
        """Return whether any of the tensors belongs to a LoKr."""
        return not LOKR_ROLES.isdisjoint(self.keys)
