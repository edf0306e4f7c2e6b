"""A file that is still arriving."""

import errno
import hashlib
import os
from collections.abc import Callable
from io import FileIO

from serve_app.errors import LoraSourceUnavailable

_READ_BYTES = 1 << 20
_GRAIN_BYTES = 64 << 20  # how much may arrive before the cache's size is looked at again


class Partial:
    """The beginning of a file: `size` bytes, hashed as they come. Whoever has it has it alone."""

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
        """Bytes that have arrived."""
        return self._size

    @property
    def sha256(self) -> str:
        """Of these bytes, in hex."""
        return self._hash.hexdigest()

    def reserve(self, more: int) -> None:
        """Make room for `more` bytes.

        Raises:
            LoraSourceUnavailable: other files, all in use, take it up.
        """
        self._make_room(max(more, 0))
        self._unaccounted = 0

    def append(self, chunk: bytes) -> None:
        """Add the next bytes.

        Raises:
            LoraSourceUnavailable: the disk is full, or the cache.
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
        """Forget all bytes."""
        self._file.seek(0)
        self._file.truncate()
        self._hash = hashlib.sha256()
        self._size = 0

    def finish(self) -> None:
        """Have the bytes on the disk before anything says that they are, and the size within its bounds.

        Raises:
            LoraSourceUnavailable: see `append`.
        """
        self.reserve(0)
        os.fdatasync(self._file.fileno())

    def _write(self, rest: memoryview) -> None:
        while rest:
            rest = rest[self._file.write(rest) :]


def full(name: str, problem: str) -> LoraSourceUnavailable:
    """There is no room for the file `name`."""
    return LoraSourceUnavailable(f"LoRA {name!r} cannot be downloaded: {problem}", {"path": name})
