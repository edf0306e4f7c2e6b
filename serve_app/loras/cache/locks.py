"""Advisory file locks (flock), and hardened opening of the files that are locked.

A lock holds between processes and between threads. It ends with its holder, even if that is killed.

Example:
    with created(directory / "lock") as file:
        wait_exclusively(file)
"""

import errno
import fcntl
import os
import stat
from io import FileIO
from pathlib import Path

from serve_app.files import NotRegular

# Never wait at a FIFO, and never follow a link: anyone who can write into the folder may have put one there.
_UNFOOLED = os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC


def created(path: Path) -> FileIO:
    """Open the regular file `path` for reading and writing; create it if it is missing, and keep its content if not.

    Raises:
        NotRegular: something else is at that path.
        OSError: it cannot be opened or created.
    """
    file = FileIO(path, "r+b", opener=lambda name, _flags: os.open(name, _CREATE | _UNFOOLED, 0o644))
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise NotRegular(str(path), "a FIFO or a device")
    return file


def opened(path: Path) -> FileIO | None:
    """Open `path` for reading; return None if there is no such regular file. A link counts as none."""
    try:
        file = FileIO(os.open(path, os.O_RDONLY | _UNFOOLED))
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a link, a socket
            return None
        raise
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    return None


def lock_exclusively(file: FileIO) -> bool:
    """Lock `file` unless another holder has it locked; return whether it is locked now."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def wait_exclusively(file: FileIO) -> None:
    """Wait until no other holder has `file` locked, and lock it."""
    fcntl.flock(file, fcntl.LOCK_EX)


def share(file: FileIO) -> None:
    """Lock `file` together with other readers; an exclusive lock of this holder becomes a shared one."""
    fcntl.flock(file, fcntl.LOCK_SH)


def is_at(file: FileIO, path: Path) -> bool:
    """Return whether the open `file` is still at `path`: it may have been moved or removed before it was locked."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
