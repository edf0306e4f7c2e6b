"""What is known of a LoRA file before and after its download."""

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

_REMOTE = re.compile(r"\s*([a-z][a-z0-9+.-]*://|data:)", re.IGNORECASE)
_ETAG = "etag-"


@dataclass(frozen=True, slots=True)
class Located:
    """A file as it was when it was looked up. `location`, `content` and `sha256` are what `LoraFile` says of them.

    `location` is for the job store, not for answers: an https URL keeps its query, which may grant access.
    `reference` may be shown. `size` is bytes.
    """

    reference: str  # as the client wrote it, without credentials
    location: str
    content: str
    sha256: str | None
    size: int
    file_name: str
    path: Path | None = None  # of a local file; downloaded ones are reached through `LoraSources.fetch`
    head: bytes = field(default=b"", repr=False, compare=False)  # how the file begins, where that was seen


@dataclass(frozen=True, slots=True)
class Part:
    """A file's bytes from `start` on, as they arrive. `total` is the size of the whole file, where it is known.

    Reading `chunks` raises `faults.Transient` where the connection breaks, stalls or ends early.
    """

    start: int
    total: int | None
    chunks: Iterator[bytes]


OpenAt = Callable[[int], AbstractContextManager[Part]]  # at an offset in bytes; a source may begin at 0 instead


def is_remote(text: str) -> bool:
    """Whether `text`, a reference or a location, is an address and no path: `https://`, `hf://`, also unknown ones."""
    return _REMOTE.match(text) is not None


def identity(location: str, validator: str, size: int) -> str:
    """What stands for the bytes at `location` as long as nobody has read them.

    `validator` is the entity tag or, for want of one, the time of the last modification.
    """
    return _ETAG + hashlib.sha256(f"{location}\n{validator}\n{size}".encode()).hexdigest()


def is_identity(content: str) -> bool:
    """Whether `content` comes from `identity`; otherwise it is a SHA-256."""
    return content.startswith(_ETAG)
