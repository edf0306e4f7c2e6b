"""The identity of an SQLite database file: detects that it was deleted or replaced while connections to it are open.

SQLite continues to read and write a file that was deleted, so everything that it confirms is lost. The same is true of
the WAL file beside it, which SQLite itself removes only when the last connection of all processes closes.

Example:
    guard = FileGuard(Path("var/jobs.db"))
    opened = guard.opened()  # with each new connection
    guard.check(opened)      # before and after each transaction on it
"""

import logging
import stat
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import NamedTuple

logger = logging.getLogger("ray.serve.wan")


class FileReplaced(OSError):
    """The file of the database, or its WAL file, is not the one that was opened."""


class _Identity(NamedTuple):
    device: int
    inode: int


@dataclass(slots=True)
class Opened:
    """The files that a connection has open. SQLite opens the WAL file with the first statement."""

    database: _Identity | None
    wal: _Identity | None = None


class FileGuard:
    """Compares the files that connections have open with the files at those paths now. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._wal = path.with_name(f"{path.name}-wal")
        self._first: _Identity | None = None
        self._largest = 0  # bytes; without VACUUM, SQLite never shortens its file
        self._lock = Lock()
        self._reported = False

    def opened(self) -> Opened:
        """Return the identity of the file that a new connection is about to open.

        Raises:
            FileReplaced: it is no regular file, or another one than this process had open before.
        """
        found, _ = _status(self._path)
        with self._lock:
            if self._first is None:
                self._first = found
        opened = Opened(self._first)
        self.check(opened)
        return opened

    def check(self, opened: Opened) -> None:
        """Raise FileReplaced unless the paths still lead to the files that are open. Takes two calls of `stat`."""
        least = self._largest  # before the look, as another thread may see the file grow meanwhile
        (found, size), (wal, _) = _status(self._path), _status(self._wal)
        opened.wal = opened.wal or wal
        problem = None
        if opened.database is None or found != opened.database:
            problem = f"{self._path} was deleted or replaced while the service runs"
        elif size < least:
            problem = f"{self._path} was overwritten or cut short while the service runs"
        elif wal != opened.wal:
            problem = f"{self._wal} was deleted or replaced while the service runs"
        else:
            with self._lock:
                self._largest = max(self._largest, size)
        self._report(problem)
        if problem is not None:
            raise FileReplaced(f"{problem}; put it back, or stop the service and start it again")

    def _report(self, problem: str | None) -> None:
        """Log a problem once, and its end once."""
        with self._lock:
            changed, self._reported = self._reported != (problem is not None), problem is not None
        if changed and problem is not None:
            logger.critical(
                "%s: nothing is accepted and nothing is written until it is back. Put the file back, or stop the "
                "service and start it again, which begins with the file that is there then",
                problem,
            )
        elif changed:
            logger.warning("%s is back", self._path)


def _status(path: Path) -> tuple[_Identity | None, int]:
    """Return which file is at `path`, and its size in bytes; None and 0 if there is none, or it is no regular file."""
    try:
        found = path.stat()
    except OSError:
        return None, 0
    return (_Identity(found.st_dev, found.st_ino), found.st_size) if stat.S_ISREG(found.st_mode) else (None, 0)
