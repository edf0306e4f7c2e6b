"""Hardened opening of files: regular files only, without blocking on a FIFO and, if asked, without following links.

Example:
    with open_regular(path, follow_links=False) as stream:
        fingerprint = Fingerprint.of(stream)

Anyone who can write into a folder can replace a file by a FIFO, a device, a socket, a directory or a link. A plain
`open` of a FIFO waits until another process writes into it, which may never happen.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, Self

_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_PIECE = 1 << 20


class NotRegular(OSError):
    """What has the name is no regular file: a directory, a FIFO, a socket, a device, or a link where none may be."""

    def __init__(self, name: str, found: str) -> None:
        super().__init__(errno.EINVAL, f"it is {found} and no regular file", name)


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The size of a file in bytes and its SHA-256 in hex, which identify its content."""

    size: int
    sha256: str

    @classmethod
    def of(cls, stream: BinaryIO) -> Self:
        """Return the fingerprint of what is left to read. Blocking. Raises OSError."""
        digest, size = hashlib.sha256(), 0
        while piece := stream.read(_PIECE):
            digest.update(piece)
            size += len(piece)
        return cls(size, digest.hexdigest())


def open_regular(path: Path | str, *, follow_links: bool = True, folder: int | None = None) -> BufferedReader:
    """Open a regular file for reading, without waiting (as for a FIFO) and without reading.

    Args:
        path: the file; where `folder` is given, a name in it.
        follow_links: whether the last part of `path` may be a symbolic link.
        folder: the descriptor of an open directory.

    Raises:
        NotRegular: something else has that name.
        OSError: it is not there, or cannot be opened.
    """
    # Before it is opened, because opening some devices has side effects.
    _check_regular(path, os.stat(path, dir_fd=folder, follow_symlinks=follow_links))
    descriptor = os.open(path, _READ | (0 if follow_links else os.O_NOFOLLOW), dir_fd=folder)
    try:
        _check_regular(path, os.fstat(descriptor))  # it may have been swapped since
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: Path | str, *, limit: int) -> bytes:
    """Return the bytes of a regular file of at most `limit` bytes; never wait.

    Raises:
        NotRegular: something else has that name.
        OSError: it is not there, cannot be read, or is larger (EFBIG).
    """
    with open_regular(path) as stream:
        if os.fstat(stream.fileno()).st_size > limit:
            raise OSError(errno.EFBIG, f"it is larger than {limit} bytes", str(path))
        return stream.read(limit)


def status_in_place(path: Path) -> os.stat_result:
    """Return the status (`lstat`) of a regular file, without opening it or following a link.

    Raises:
        NotRegular: something else has that name.
        OSError: it is not there, or cannot be reached.
    """
    status = path.lstat()
    _check_regular(path, status)
    return status


@contextmanager
def open_folder(root: Path, parts: tuple[str, ...], *, create: bool = False) -> Iterator[int]:
    """Yield a descriptor of the folder `parts` under `root`, reached without following a link below `root`.

    Raises:
        FileNotFoundError: a folder is not there, and `create` is false.
        OSError: something that is no folder has one of the names, or a folder cannot be opened or made.
    """
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts:
            if create:
                _make_folder(part, descriptor)
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def _make_folder(name: str, folder: int) -> None:
    try:
        os.mkdir(name, dir_fd=folder)
    except FileExistsError:
        if not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            raise


def _check_regular(path: Path | str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise NotRegular(str(path), _KINDS.get(stat.S_IFMT(status.st_mode), "something else"))


_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFLNK: "a link",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
