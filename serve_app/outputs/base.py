"""The interface of output stores: files by name, written atomically, and verified when they are read.

Example:
    outputs = OutputStore.from_url("s3://bucket/videos")
    kept = await outputs.put("3a9c.../0-1.mp4", Path("/tmp/0.mp4"), "video/mp4")
    found = await outputs.open("3a9c.../0-1.mp4", kept)
    await outputs.signed_url("3a9c.../0-1.mp4", expires_s=3600)

All kinds write atomically: a file appears whole or not at all, and storing a name again replaces it. They differ in
how a client gets at a file: from an open file, or through a signed URL.
"""

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, BinaryIO, ClassVar, Self
from urllib.parse import SplitResult, urlsplit
from uuid import uuid4

from serve_app.errors import ConfigurationInvalid, OutputNotWritten
from serve_app.files import Fingerprint

LOOK_BYTES = 256 << 10  # without room for this much, no video fits
_ANSWERS_WITHIN_S = 15.0

_SCHEMES = ("file", "s3", "gs", "az")


class NotAsStored(Exception):
    """The file with the name of an output is not the one that was stored. The text says what was found."""


@dataclass(frozen=True, slots=True)
class OpenOutput:
    """An open regular file that holds what was stored. Close `stream`."""

    stream: BinaryIO
    status: os.stat_result


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file in the store. `size` is bytes, `modified_at` seconds since the epoch."""

    name: str
    size: int
    modified_at: float


class OutputStore(ABC):
    """Files by name. Names are the service's own, such as `{request_id}/{index}-{attempt}.mp4`.

    A name that is not a plain relative path raises ValueError everywhere.
    """

    _kinds: ClassVar[dict[str, type["OutputStore"]]] = {}  # by scheme

    def __init_subclass__(cls, *, schemes: tuple[str, ...], **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        OutputStore._kinds.update(dict.fromkeys(schemes, cls))

    @staticmethod
    def from_url(url: str, *, make: bool = True) -> "OutputStore":
        """Return the store behind the arg `output_url`: `file:///dir`, `s3://bucket/prefix`, `gs://...`, `az://...`.

        With `make`, a directory that is missing is created now; without, with the first file, so that an API goes on
        while its disk is away. Credentials, regions and endpoints come from the environment variables
        of each cloud's own tools (`AWS_ACCESS_KEY_ID`, `GOOGLE_APPLICATION_CREDENTIALS`,
        `AZURE_STORAGE_ACCOUNT_NAME`, ...), as obstore reads them.

        Raises:
            ConfigurationInvalid: the scheme is unknown, or nothing can be kept at that place.
        """
        parts = urlsplit(url)
        kind = OutputStore._kinds.get(parts.scheme)
        if kind is None:
            known = ", ".join(f"{scheme}://" for scheme in _SCHEMES)
            raise misconfigured(f"must start with one of {known}; {parts.scheme or 'no'} scheme was given")
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise misconfigured("must be a place only; credentials and options belong in the environment")
        return kind.at(parts, make=make)

    @classmethod
    @abstractmethod
    def at(cls, url: SplitResult, *, make: bool) -> Self:
        """Return the store at a URL of one of its schemes; see `from_url`."""

    @abstractmethod
    async def put(self, name: str, source: Path, media_type: str) -> Fingerprint:
        """Store a copy of `source` as `name`, and return the size and hash of its bytes.

        Readers see the old file or the new one, never a part. After an error nothing is left behind.

        Raises:
            OutputNotWritten: with the reason, free of credentials and signed URLs.
        """

    async def look(self, size: int = LOOK_BYTES) -> None:
        """Store a file of `size` bytes and remove it, to find out whether the store can be written now.

        Raises:
            OutputNotWritten: it cannot be written, or does not answer.
        """
        name = f".look-{uuid4().hex}"
        try:
            async with asyncio.timeout(_ANSWERS_WITHIN_S):
                with NamedTemporaryFile() as source:
                    source.truncate(size)  # takes no room here; its copy does
                    await self.put(name, Path(source.name), "application/octet-stream")
                await self.delete([name])
        except TimeoutError:
            raise OutputNotWritten(f"the place for outputs did not answer within {_ANSWERS_WITHIN_S:g} s") from None
        except OSError as error:
            reason = error.strerror or str(error)
            raise OutputNotWritten(f"nothing can be written and removed there: {reason}") from error

    @abstractmethod
    async def open(self, name: str, stored: Fingerprint | None) -> OpenOutput | None:
        """Check that `name` still holds what was stored, and open it; None if files are reached by `signed_url`.

        Args:
            name: of the file.
            stored: what `put` returned; None compares nothing.

        Raises:
            FileNotFoundError: there is no such file.
            NotAsStored: something else has that name.
            OSError: the place cannot be reached or read.
        """

    @abstractmethod
    async def read(self, name: str) -> bytes:
        """Return the bytes of a file that is small enough to be held in memory. They are compared with nothing.

        Raises:
            FileNotFoundError: there is no such file.
            NotAsStored: something that is no regular file has that name.
            OSError: the place cannot be reached or read.
        """

    @abstractmethod
    def local_path(self, name: str) -> Path | None:
        """Return the path of the file, whether or not it exists; None if files are reached by `signed_url`."""

    @abstractmethod
    async def signed_url(self, name: str, expires_s: int) -> str:
        """Return a URL that serves the file, ranges included, to anyone who has it, for `expires_s` seconds.

        Raises:
            NotImplementedError: files have a `local_path` here.
            OSError: the store's credentials could not be obtained.
        """

    async def origin(self) -> str | None:
        """Return scheme, host and port of every `signed_url`, as browsers compare them; None if there are none.

        Raises:
            OSError: the store's credentials could not be obtained.
        """
        return None

    @abstractmethod
    def location(self, name: str) -> str:
        """Return where the file is, for people: an absolute path, or the full URL with its scheme."""

    @abstractmethod
    def files(self) -> AsyncIterator[StoredFile]:
        """Yield every file, also those that are no outputs. Files that appear or vanish meanwhile may be among them.

        Raises:
            OSError: the place cannot be reached or read.
        """

    @abstractmethod
    async def has(self, name: str) -> bool:
        """Return whether there is a file of that name.

        Raises:
            OSError: the place cannot be reached.
        """

    @abstractmethod
    async def delete(self, names: Iterable[str]) -> None:
        """Remove these files; a missing file is no error.

        Raises:
            OSError: a file could not be removed. The ones before it are removed; the call can be repeated.
        """


def checked(name: str) -> str:
    """Return `name` if it can only lie inside the store, else raise ValueError."""
    if "\\" in name or "\0" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise ValueError(f"not a name for an output: {name!r}")
    return name


def misconfigured(problem: str) -> ConfigurationInvalid:
    """Return the error for a place that no store can be made of."""
    return ConfigurationInvalid(f"output_url {problem}", {"arg": "output_url", "schemes": list(_SCHEMES)})


def check_stored(found: Fingerprint, stored: Fingerprint) -> None:
    """Raise NotAsStored if the two differ."""
    if found.size != stored.size:
        raise NotAsStored(f"it has {found.size} bytes, and {stored.size} were stored")
    if found.sha256 != stored.sha256:
        raise NotAsStored("its bytes are not those that were stored")
