"""How a refused LoRA file is worded, the same for every check."""

from collections.abc import Sequence
from dataclasses import dataclass

from serve_app.errors import LoraInvalid

KEYS_NAMED = 10  # enough to see the pattern; a wrong file may have thousands
KEY_LENGTH = 200  # a hostile header may hold names of megabytes


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a file cannot be used, and the tensors that show it (missing ones included)."""

    reason: str
    keys: Sequence[str] = ()


def refuse(name: str, fault: Fault | None) -> None:
    """Raise LoraInvalid for the file `name` if there is a fault."""
    if fault is not None:
        raise invalid(name, fault.reason, fault.keys)


def invalid(name: str, reason: str, keys: Sequence[str] = ()) -> LoraInvalid:
    """The error for file `name` (as the client wrote it), for `reason`, with the offending tensor names.

    Details: `file`, `reason`, `keys` (the first ten), `count` (of all).
    """
    shown = [key[:KEY_LENGTH] for key in keys[:KEYS_NAMED]]
    return _worded(name, reason, shown, len(keys))


def renamed(error: LoraInvalid, name: str) -> LoraInvalid:
    """A fresh copy of `error` that speaks of the same content under another path."""
    details = error.details
    return _worded(name, details["reason"], details["keys"], details["count"])


def _worded(name: str, reason: str, keys: list[str], count: int) -> LoraInvalid:
    example = f" (first of {count} tensors: {keys[0]})" if keys else ""
    return LoraInvalid(
        f"LoRA file {name!r} cannot be used: {reason}{example}",
        {"file": name, "reason": reason, "keys": keys, "count": count},
    )
