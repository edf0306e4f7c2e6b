"""The interface of a remote source, and its values: a located file, a request to read it, a byte range, the policy.

Example:
    located = source.locate("https://host/file.safetensors", "https://host/file.safetensors", token=None, expert=None)
    with source.open(ReadRequest(located.location, name, located.content, None, Deadline(60), stop=99)) as part:
        head = b"".join(part.chunks)
"""

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field

from serve_app.loras.formats.bounds import DEFAULT_HEADER_BYTES
from serve_app.net import Deadline
from serve_app.net.hub import HubPolicy
from serve_app.spec import Expert

_GIB = 2**30
_REMOTE = re.compile(r"\s*([a-z][a-z0-9+.-]*://|data:)", re.IGNORECASE)
_ETAG = "etag-"


class SourcePolicy(HubPolicy):
    """The args of the service for sources. Sizes are bytes, `_s` is seconds.

    A bucket is written `s3://name` in `hosts`. The Hub and the hosts that it redirects downloads to are no exception
    to `hosts`; but the Hub may be private, since the operator named it. `hub_token` serves requests without one.
    """

    max_bytes: int = Field(8 * _GIB, gt=0)
    max_header_bytes: int = Field(DEFAULT_HEADER_BYTES, gt=0)
    locate_timeout_s: float = Field(30, gt=0)  # to identify a file or read its header, retries included
    total_timeout_s: float = Field(600, gt=0)  # to download a file, retries included


@dataclass(frozen=True, slots=True)
class Located:
    """A file as it was when it was looked up. `location`, `content` and `sha256` are explained at `LoraFile`.

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
    head: bytes = field(default=b"", repr=False, compare=False)  # the file's first bytes, if they were read


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """Bytes [start, stop) of a file that was located, to be read before `deadline`; `stop` None is its end.

    `name` is its reference as it may be shown. A source compares `content` with what it finds; "" fits anything.
    """

    location: str = field(repr=False)  # an https URL keeps its query, which may grant access
    name: str
    content: str
    token: str | None = field(repr=False)
    deadline: Deadline
    start: int = 0
    stop: int | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """A file's bytes from `start` on, as they arrive. `total` is the size of the whole file, if it is known.

    Reading `chunks` raises `net.Transient` where the connection breaks, stalls or ends early.
    """

    start: int
    total: int | None
    chunks: Iterator[bytes]


OpenAt = Callable[[int], AbstractContextManager[Part]]  # at an offset in bytes; a source may begin at 0 instead


class Changed(Exception):
    """The file is no longer the one that was identified."""


class RemoteSource(ABC):
    """Files behind one kind of address. Thread-safe; calls block. `name` is the reference as answers may show it.

    Every method may raise LoraNotFound, LoraPathRefused, LoraInvalid, LoraSourceUnavailable and `net.Forbidden`.
    """

    @abstractmethod
    def locate(self, reference: str, name: str, *, token: str | None, expert: Expert | None) -> Located:
        """Identify the file that `reference` names now."""

    @abstractmethod
    def open(self, wanted: ReadRequest) -> AbstractContextManager[Part]:
        """Open the wanted bytes. A source may begin at 0 instead.

        Raises:
            net.Transient: trying again may help.
            Changed: the file there is not the content wanted, as far as the source can tell without reading it.
        """


def is_remote(text: str) -> bool:
    """Return whether `text`, a reference or a location, is an address (`https://`, `hf://`, or unknown), not a path."""
    return _REMOTE.match(text) is not None


def identity(location: str, validator: str, size: int) -> str:
    """Return an id for the bytes at `location`, used until they were downloaded and hashed.

    `validator` is the entity tag or, without one, the time of the last modification (RFC 9110, section 8.8).
    """
    return _ETAG + hashlib.sha256(f"{location}\n{validator}\n{size}".encode()).hexdigest()


def is_identity(content: str) -> bool:
    """Return whether `content` comes from `identity`; otherwise it is a SHA-256."""
    return content.startswith(_ETAG)
