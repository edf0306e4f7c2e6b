"""The LoraInvalid error: one wording for every check of a LoRA file.

Example:
    refuse("my_lora.safetensors", Fault("an alpha is 0; export it without", ["blocks.0.ffn.0.alpha"]))
"""

from collections.abc import Sequence
from dataclasses import dataclass

from serve_app.errors import LoraInvalid

KEYS_NAMED = 10  # enough to see the pattern; a wrong file may have thousands
KEY_LENGTH = 200  # a hostile header may hold names of megabytes


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a file cannot be used and what to do about it, with the keys of the tensors (missing ones, too)."""

    reason: str
    keys: Sequence[str] = ()


def refuse(name: str, fault: Fault | None) -> None:
    """Raise LoraInvalid for the file `name` if `fault` is not None."""
    if fault is not None:
        raise invalid(name, fault.reason, fault.keys)


def invalid(name: str, reason: str, keys: Sequence[str] = ()) -> LoraInvalid:
    """Return the error for the file `name`, as the client wrote it.

    Details: `file`, `reason`, `keys` (the first ten, each cut to 200 characters), `count` (of all).
    """
    shown = [key[:KEY_LENGTH] for key in keys[:KEYS_NAMED]]
    return _worded(name, reason, shown, len(keys))


def renamed(error: LoraInvalid, name: str) -> LoraInvalid:
    """Return a copy of `error`, without traceback, for the same content under another name."""
    details = error.details
    return _worded(name, details["reason"], details["keys"], details["count"])


def _worded(name: str, reason: str, keys: list[str], count: int) -> LoraInvalid:
    example = f" (first of {count} tensors: {keys[0]})" if keys else ""
    return LoraInvalid(
        f"LoRA file {name!r} cannot be used: {reason}{example}",
        {"file": name, "reason": reason, "keys": keys, "count": count},
    )
