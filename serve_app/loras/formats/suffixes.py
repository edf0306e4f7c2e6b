"""What a tensor is for its module, told by how its name ends, in every convention that trainers write.

Sources: kohya and musubi-tuner (lora_down, lora_up, alpha, dora_scale), PEFT (lora_A, lora_B, lora_magnitude_vector,
also with an adapter's name), diffusers (lora.down, lora.up), AI Toolkit (magnitude), LyCORIS (lokr_*, diff, w_norm,
b_norm) and ComfyUI's comfy/weight_adapter, which reads them all (diff, diff_b).
"""

import re
from enum import StrEnum
from itertools import chain


class Role(StrEnum):
    """The part that a tensor plays in a change."""

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
# Of each factor of a LoKr: the whole of it, or the two whose product it is.
FACTOR_ROLES = ((Role.W1, Role.W1_A, Role.W1_B), (Role.W2, Role.W2_A, Role.W2_B))
LOKR_ROLES = frozenset(chain.from_iterable(FACTOR_ROLES))

_ADAPTER = r"(?:\.[^.]+)?"  # PEFT's state dicts carry the adapter's name before the last part
_ENDINGS = {
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
    r"(?P<stem>.+?)\.(?:" + "|".join(f"(?P<{role.name}>{ending})" for role, ending in _ENDINGS.items()) + ")"
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
    r"(?P<stem>.+?)\.(?:" + "|".join(f"(?P<R{number}>{ending})" for number, ending in enumerate(_UNSUPPORTED)) + ")"
)
_UNSUPPORTED_REASONS = tuple(_UNSUPPORTED.values())

LONGEST_KEY = 500  # no convention comes near; some patterns take quadratic time for names made to that end
_HALVES = (("lora_A", "lora_B"), ("lora_down", "lora_up"), ("lora.down", "lora.up"))


def split_key(key: str) -> tuple[str, Role] | None:
    """(the module's name with what stands before it, the tensor's role), or None where the ending is unknown."""
    match = _KEY.fullmatch(key) if len(key) <= LONGEST_KEY else None
    if match is None or match.lastgroup is None:
        return None
    return match["stem"], Role[match.lastgroup]


def split_unsupported(key: str) -> tuple[str, str] | None:
    """(the module's name likewise, what the file holds that this service does not apply and what to do)."""
    match = _UNSUPPORTED_KEY.fullmatch(key) if len(key) <= LONGEST_KEY else None
    if match is None or match.lastgroup is None:
        return None
    return match["stem"], _UNSUPPORTED_REASONS[int(match.lastgroup[1:])]


def other_half(key: str) -> str:
    """The name under which the other half of a low-rank pair is expected beside `key`, itself one half."""
    stem, _, ending = key.rpartition(".lora")
    ending = f"lora{ending}"
    for down, up in _HALVES:
        if ending.startswith(down):
            return f"{stem}.{up}{ending.removeprefix(down)}"
        if ending.startswith(up):
            return f"{stem}.{down}{ending.removeprefix(up)}"
    raise ValueError(key)
