"""How sources word what goes wrong: with the reference as the client wrote it, but for anything secret in it."""

import re

from serve_app.errors import LoraNotFound, LoraPathRefused, LoraSourceUnavailable
from serve_app.loras.sources.located import is_remote

_URL = re.compile(r"\s*([a-z][a-z0-9+.-]*://)(?:[^/?#]*@)?([^?#]*)(\?)?", re.IGNORECASE)
_LONGEST = 500  # a hostile reference may be megabytes long


def shown(reference: str) -> str:
    """`reference` as it may appear in answers and logs: a URL's query, which may be a signature, and user are left out.

    A lone surrogate, which no answer can hold, is escaped.
    """
    text = reference
    parts = _URL.match(reference)
    if parts is not None:
        text = f"{parts[1]}{parts[2]}{'?...' if parts[3] else ''}"
    elif is_remote(reference):
        text = "data:..."
    text = text if len(text) <= _LONGEST or not is_remote(reference) else f"{text[:_LONGEST]}..."
    return text.encode(errors="backslashreplace").decode()


def refused(name: str, reason: str) -> LoraPathRefused:
    """`name`, as shown, is nothing that this service reads."""
    return LoraPathRefused(f"LoRA path {name!r} is refused: {reason}", {"path": name})


def not_found(name: str) -> LoraNotFound:
    """Nothing is at `name`."""
    return LoraNotFound(f"LoRA file(s) not found: {[name]}", {"missing_files": [name]})


def unavailable(name: str, reason: str) -> LoraSourceUnavailable:
    """The source of `name` does not deliver, though it might later."""
    return LoraSourceUnavailable(f"LoRA {name!r} cannot be read from its source now: {reason}", {"path": name})


def too_large(name: str, size: int, limit: int) -> LoraPathRefused:
    """The file is larger than the service downloads; both in bytes."""
    return refused(name, f"it has at least {size} bytes, and this service downloads at most {limit}")
