"""State-dict keys: prefixes (wrappers) and suffixes, the module that a tensor belongs to, and its role in a change.

A key consists of wrappers, the name of a module, and a suffix: `diffusion_model.` `blocks.0.self_attn.q`
`.lora_A.weight`. The suffix gives the `Role`, the rest the `Place`. The keys of one file may follow different
conventions. To support a new wrapper, add it to `_OTHER_WRAPPERS` or `_DENOISERS`; a new suffix, to `_SUFFIXES`.

Sources of the suffixes: kohya and musubi-tuner (lora_down, lora_up, alpha, dora_scale), PEFT (lora_A, lora_B,
lora_magnitude_vector, also with an adapter's name), diffusers (lora.down, lora_linear_layer.down and their up), AI
Toolkit (magnitude), LyCORIS (lokr_*, diff, w_norm, b_norm) and ComfyUI's comfy/weight_adapter, which reads them all
(diff, diff_b).
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from enum import StrEnum
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
    Role.DOWN: rf"lora_A(?:{_ADAPTER}\.weight)?|lora(?:_|\.|_linear_layer\.)down\.weight",
    Role.UP: rf"lora_B(?:{_ADAPTER}\.weight)?|lora(?:_|\.|_linear_layer\.)up\.weight",
    Role.ALPHA: r"(?:lora[_.]|network_)?(?:alpha|Alpha)(?:\.default|\.weight)?",
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

_TABLE_DIFFERENCE = ".diff_m"  # of distilled LoRAs; ComfyUI patches `modulation` with it
_TABLE = ".modulation"

_REEXPORT = "train or export it as a LoRA, DoRA or LoKr"
_UNSUPPORTED = {
    r"lora_mid(?:\.weight)?|lokr_t[12]": "Tucker decompositions; train it without (use_tucker or use_cp: false)",
    r"hada_\w+": f"a LoHa; {_REEXPORT}",
    r"(?:oft|boft)_\w+(?:\.[^.]+)*": f"an OFT; {_REEXPORT}",
    r"(?:a1|a2|b1|b2|bm1|bm2)\.weight": f"a GLoRA; {_REEXPORT}",
    rf"ia3_\w+{_ADAPTER}|on_input": f"an IA3; {_REEXPORT}",
    rf"(?:vera_lambda_[bd]|vblora_\w+){_ADAPTER}": f"a VeRA or VB-LoRA; {_REEXPORT}",
    rf"(?:lora_E|ranknum){_ADAPTER}": f"an AdaLoRA; {_REEXPORT}",
    rf"(?:fourierft_spectrum|hra_u|randlora_\w+|dylora_\w+|lora_R){_ADAPTER}(?:\.weight)?": (
        f"an adapter of a kind that is not read; {_REEXPORT}"
    ),
    rf"lora_embedding_[AB]{_ADAPTER}": f"a LoRA of an embedding; {_REEXPORT}",
    r"(?:scale_weight|scale_input|weight_scale(?:_\d)?|qweight|qzeros|scales|absmax|quant_map|quant_state.*)": (
        "weights of a quantised checkpoint; use the LoRA itself"
    ),
    r"(?:lora_)?(?:scale|scaling)(?:\.default|\.weight)?": (
        "a scale for each layer, of a kind that is not read; export it with alpha tensors"
    ),
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
"""Characters. Longer keys are unknown: no convention has such keys, and some patterns take quadratic time on a hostile
key (ReDoS)."""

_HALVES = (
    ("lora_A", "lora_B"),
    ("lora_down", "lora_up"),
    ("lora.down", "lora.up"),
    ("lora_linear_layer.down", "lora_linear_layer.up"),
)
_NAMED_ADAPTER = re.compile(r"\.lora_[AB]\.([^.]+)\.weight$")
_HALF = re.compile(r"\.lora_[AB]$|\.(?:" + "|".join(map(re.escape, chain(*_HALVES))) + r")(?:\.[^.]+)?\.weight$")


def split_key(key: str) -> tuple[str, Role] | None:
    """Split a key into the part before its suffix and the tensor's role. Return None if the suffix is unknown."""
    if len(key) > LONGEST_KEY:
        return None
    if key.endswith(_TABLE_DIFFERENCE):  # `blocks.0.diff_m` is the difference of `blocks.0.modulation`
        owner = key.removesuffix(_TABLE_DIFFERENCE).removesuffix(_TABLE)
        return f"{owner}{_TABLE}", Role.DIFFERENCE
    match = _KEY.fullmatch(key)
    if match is None or match.lastgroup is None:
        return None
    return match["stem"], Role[match.lastgroup]


def split_unsupported(key: str) -> tuple[str, str] | None:
    """Split the key of a tensor of an unsupported kind into the part before its suffix and advice for the user.

    Return None if the suffix is unknown.
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


def adapter_name(key: str) -> str | None:
    """Return the name that PEFT's state dicts carry in a key; None if there is none, or PEFT's own.

    >>> adapter_name("blocks.0.self_attn.q.lora_A.low_noise.weight")
    'low_noise'
    """
    match = _NAMED_ADAPTER.search(key) if len(key) <= LONGEST_KEY else None
    return None if match is None or match[1] == "default" else match[1]


def lone_halves(keys: Collection[str]) -> list[str]:
    """Return the halves of low-rank pairs whose other half is not among `keys`; told by their endings."""
    return [key for key in keys if _HALF.search(key) and other_half(key) not in keys]


@dataclass(frozen=True, slots=True)
class Place:
    """The meaning of a key without its suffix.

    `wrapper` is everything before the module's name. If it names the second denoiser of a pipeline (`transformer_2.`),
    `first_of` is the corresponding wrapper of the first one (`transformer.`).
    """

    module: Module
    layout: Layout
    expert: Expert | None
    wrapper: str
    first_of: str | None


# Words that trainers, pipelines and torch put before a module's name, and the layout that some of them indicate.
# DiffSynth writes `pipe.dit.`, VideoX-Fun `lora_unet__`, torch.compile `_orig_mod.`, FSDP `_fsdp_wrapped_module.`.
_DENOISERS = (
    *("backbone", "denoiser", "diffusion", "diffusion_model", "dit", "expert", "generator", "model", "net"),
    *("network", "student", "transformer", "transformer_?3d", "unet", "video_dit", "video_model", "video_transformer"),
    "wan",
)
_LAYOUTS = {
    "base_model": Layout.PEFT,
    "lora_unet": Layout.KOHYA,
    "lora_transformer": Layout.KOHYA,
    "lycoris": Layout.LYCORIS,
    "diffusion_model": Layout.AI_TOOLKIT,
    "transformer": Layout.DIFFUSERS,
}
_OTHER_WRAPPERS = (
    *("accelerator", "actor", "adapter", "adapters", "base_model", "core", "ds_module", "ema", "ema_model", "engine"),
    *(
        "experts",
        "flow",
        "flow_model",
        "fsdp",
        "inner_model",
        "lightning_module",
        "model_ema",
        "model_engine",
        "module",
    ),
    *("lora", "lora_dit", "lora_layers", "lora_model", "lora_unet", "lora_transformer", "lora_wan", "lycoris", "moe"),
    *("params", "peft", "peft_model", "pipe", "pipeline", "pl_module", "policy", "sd", "sd_model", "state_dict"),
    *("trainer", "unwrapped_model", "video", "weights", "wrapped_model"),
    *("wan_?model", "wan_?video", "wan_?transformer_?3d(?:_?model)?", "_checkpoint_wrapped_module", "_forward_module"),
    *("_fsdp_wrapped_module", "_orig_mod"),
)
_SIDES = {
    **{"1": Expert.HIGH, "high": Expert.HIGH, "hn": Expert.HIGH},
    **{"2": Expert.LOW, "low": Expert.LOW, "ln": Expert.LOW},
}
_DENOISER = "|".join(_DENOISERS)
# The longest first. "transformer_blocks" is a layer of other models.
_PLAIN = "|".join(sorted({*_OTHER_WRAPPERS, *_DENOISERS}, key=len, reverse=True)).replace(
    "|transformer|", "|transformer(?!_blocks)|"
)
_WRAPPER = re.compile(
    r"(?:wan_?2[._]?[12](?=[._]\D)|"  # the version of the model, and not its second denoiser
    # transformer_2, dit2, model_high_noise, transformer_low
    rf"(?P<before>{_DENOISER})_?(?P<side>[12]|hn|ln|(?:high|low)(?=_?noise|[._]))(?:_?noise)?"
    # high_noise_model, HighNoiseModel, low-noise, noise_high, high
    rf"|(?:noise_)?(?P<side_first>hn|ln|high|low)(?:[_-]?noise)?(?:_?(?:{_DENOISER})(?!_blocks))?"
    rf"|(?P<plain>{_PLAIN})(?!_?[12][._])"
    r")(?:\.|_+)",
    re.IGNORECASE,
)
_TORCH_WRAPPERS = re.compile(r"\._(?:orig_mod|fsdp_wrapped_module|checkpoint_wrapped_module)(?=\.)")


def find_place(stem: str, architecture: WanArchitecture) -> Place | None:
    """Return the place of `stem`, a key without its suffix, in a model of `architecture`; None if it has none.

    Wrappers are removed in any order and number. None also if two of them name different experts.
    """
    rest = _TORCH_WRAPPERS.sub("", stem)
    found: list[re.Match[str]] = []
    while match := _WRAPPER.match(rest):
        found.append(match)
        rest = rest[match.end() :]
    names = _names(architecture)
    module = names.dotted.get(rest) or names.underscored.get(rest.replace(".", "_"))
    sides = {_SIDES[side.lower()] for match in found if (side := match["side"] or match["side_first"])}
    if module is None or len(sides) > 1:
        return None
    wrapper = "".join(match[0] for match in found)
    first_of = "".join(_as_first(match) for match in found)
    return Place(module, _layout(found), next(iter(sides), None), wrapper, first_of if first_of != wrapper else None)


def _as_first(match: re.Match[str]) -> str:
    """Return the wrapper with the name of the first denoiser: `transformer.` for `transformer_2.`."""
    return f"{match['before']}{match[0][-1]}" if match["side"] == "2" else match[0]


def _layout(wrappers: list[re.Match[str]]) -> Layout:
    words = [match["plain"] or match["before"] for match in wrappers]
    known = [_LAYOUTS[word.lower()] for word in words if word and word.lower() in _LAYOUTS]
    return Layout.PEFT if Layout.PEFT in known else next(iter(known), Layout.BARE)


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
