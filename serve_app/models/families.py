"""Families of parameters (attention, feed-forward, norms, ...), for summaries that a person reads."""

from enum import StrEnum


class Family(StrEnum):
    """A part of the model."""

    SELF_ATTENTION = "self_attention"
    CROSS_ATTENTION = "cross_attention"
    FEED_FORWARD = "feed_forward"
    NORMS = "norms"
    MODULATION = "modulation"
    EMBEDDINGS = "embeddings"  # of patches, text and time
    HEAD = "head"


# The order matters: norms are inside the attentions.
_MARKS = (
    (".norm", Family.NORMS),
    (".attn1.", Family.SELF_ATTENTION),
    (".attn2.", Family.CROSS_ATTENTION),
    (".ffn.", Family.FEED_FORWARD),
    ("scale_shift_table", Family.MODULATION),
    ("proj_out", Family.HEAD),
)


def family(parameter: str) -> Family:
    """Return the family of a parameter by its name in diffusers."""
    return next((name for mark, name in _MARKS if mark in parameter), Family.EMBEDDINGS)


def block(parameter: str) -> int | None:
    """Return the number of the block that a parameter is in; None if it is in none."""
    parts = parameter.split(".")
    return int(parts[1]) if parts[0] == "blocks" else None


def ranges(numbers: set[int]) -> str:
    """Return numbers as text, like "0-39" or "0-3, 7"; empty for none."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ", ".join("-".join(map(str, run)) for run in runs)
