"""Error messages of sources: they name the reference as the client wrote it, without secrets.

Example:
    with worded(name):                                # Forbidden becomes LoraPathRefused
        located = attempt(look_up, policy, deadline, name)    # Transient, after retries, becomes LoraSourceUnavailable
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from serve_app.errors import LoraNotFound, LoraPathRefused, LoraSourceUnavailable
from serve_app.loras.sources.base import SourcePolicy, is_remote
from serve_app.net import AddressForbidden, Deadline, Forbidden, HostForbidden, Transient, retry

Result = TypeVar("Result")
_URL = re.compile(r"\s*([a-z][a-z0-9+.-]*://)(?:[^/?#]*@)?([^?#]*)(\?)?", re.IGNORECASE)
_LONGEST = 500  # a hostile reference may be megabytes long


def shown(reference: str) -> str:
    """Return `reference` as it may appear in answers and logs: without a URL's user and query (it may be a signature).

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
    """Return the error for a reference that this service does not read; `name` is the result of `shown`."""
    return LoraPathRefused(f"LoRA path {name!r} is refused: {reason}", {"path": name})


def not_found(name: str) -> LoraNotFound:
    """Return the error for a reference to nothing."""
    return LoraNotFound(f"LoRA file(s) not found: {[name]}", {"missing_files": [name]})


def unavailable(name: str, reason: str) -> LoraSourceUnavailable:
    """Return the error for a source that does not deliver the file now, but may do so later."""
    return LoraSourceUnavailable(f"LoRA {name!r} cannot be read from its source now: {reason}", {"path": name})


def too_large(name: str, size: int, limit: int) -> LoraPathRefused:
    """Return the error for a file that is larger than this service downloads; both in bytes."""
    return refused(name, f"it has at least {size} bytes, and this service downloads at most {limit}")


@contextmanager
def worded(name: str) -> Iterator[None]:
    """Turn Forbidden into LoraPathRefused."""
    try:
        yield
    except HostForbidden as error:
        reason = f"its host {error.host!r} is none of those that LoRAs may come from (lora_hosts)"
        raise refused(name, reason) from None
    except AddressForbidden as error:
        raise refused(name, f"{error}; an operator can allow it in lora_private_hosts") from None
    except Forbidden as error:
        raise refused(name, str(error)) from None


def attempt(work: Callable[[], Result], policy: SourcePolicy, deadline: Deadline, name: str) -> Result:
    """Return the result of `work`, retried as long as it raises Transient.

    Raises:
        LoraSourceUnavailable: it still did at the last attempt, or no time is left for another.
    """
    try:
        return retry(work, policy, deadline)
    except Transient as fault:
        raise unavailable(name, f"{fault.reason}; retry later") from None  # the cause may quote signed URLs
