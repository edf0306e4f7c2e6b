"""Partial downloads: the first bytes of a file, hashed as they arrive, within the room of the cache.

Example:
    partial = Partial(file, "hf://org/repository/file.safetensors", make_room)
    partial.reserve(size - partial.size)  # an interrupted download is resumed at `size`
    partial.append(chunk)
    partial.finish()
"""

import errno
import hashlib
import os
from collections.abc import Callable
from io import FileIO

from serve_app.errors import LoraSourceUnavailable

_READ_BYTES = 1 << 20
_GRAIN_BYTES = 64 << 20  # after so many bytes the size of the cache is checked again


class Partial:
    """The first `size` bytes of a file, hashed as they arrive. There is one writer at a time, which holds the lock."""

    def __init__(self, file: FileIO, name: str, make_room: Callable[[int], None]) -> None:
        self._file = file
        self._name = name
        self._make_room = make_room
        self._unaccounted = 0
        self._hash = hashlib.sha256()
        self._size = 0
        while piece := file.read(_READ_BYTES):
            self._hash.update(piece)
            self._size += len(piece)

    @property
    def size(self) -> int:
        """Return the number of bytes that have arrived."""
        return self._size

    @property
    def sha256(self) -> str:
        """Return the SHA-256 of these bytes, in hex."""
        return self._hash.hexdigest()

    def reserve(self, more: int) -> None:
        """Make room for `more` bytes.

        Raises:
            LoraSourceUnavailable: the cache is full of files that are all in use.
        """
        self._make_room(max(more, 0))
        self._unaccounted = 0

    def append(self, chunk: bytes) -> None:
        """Add the next bytes.

        Raises:
            LoraSourceUnavailable: the disk or the cache is full.
            OSError: the disk failed.
        """
        self._unaccounted += len(chunk)
        if self._unaccounted > _GRAIN_BYTES:
            self.reserve(len(chunk))  # other downloads may have taken what was reserved
        try:
            self._write(memoryview(chunk))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise full(self._name, "the disk of the LoRA cache is full") from error
            raise
        self._hash.update(chunk)
        self._size += len(chunk)

    def restart(self) -> None:
        """Drop all bytes and begin again."""
        self._file.seek(0)
        self._file.truncate()
        self._hash = hashlib.sha256()
        self._size = 0

    def finish(self) -> None:
        """Flush the bytes to the disk, so that the file may be published, and check the size of the cache.

        Raises:
            LoraSourceUnavailable: see `append`.
        """
        self.reserve(0)
        os.fdatasync(self._file.fileno())

    def _write(self, rest: memoryview) -> None:
        while rest:
            rest = rest[self._file.write(rest) :]


def full(name: str, problem: str) -> LoraSourceUnavailable:
    """Return the error for the file `name`, for which there is no room."""
    return LoraSourceUnavailable(f"LoRA {name!r} cannot be downloaded: {problem}", {"path": name})
