"""Locks on files between processes and threads, which end with their holder, however it ends."""

import fcntl
import os
from io import FileIO
from pathlib import Path

_CREATE = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC


def created(path: Path) -> FileIO:
    """`path` for reading and writing, with what is in it already."""
    return FileIO(path, "r+b", opener=lambda name, _flags: os.open(name, _CREATE, 0o644))


def opened(path: Path) -> FileIO | None:
    """`path` for reading; None if there is no such file."""
    try:
        return FileIO(path)
    except FileNotFoundError:
        return None


def lock_exclusively(file: FileIO) -> bool:
    """Whether nobody else had `file` locked; then this holder has."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def wait_exclusively(file: FileIO) -> None:
    """Lock `file` as soon as nobody else has."""
    fcntl.flock(file, fcntl.LOCK_EX)


def share(file: FileIO) -> None:
    """Lock `file` beside others who share it; an exclusive lock of this holder becomes a shared one."""
    fcntl.flock(file, fcntl.LOCK_SH)


def is_at(file: FileIO, path: Path) -> bool:
    """Whether `path` still names the open `file`: it may have been moved or removed before the lock was had."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
