"""On-disk layout of the cache: content-addressed blobs, partial downloads, advisory file locks, LRU eviction.

Locks are `flock` on the files themselves: they hold between processes and threads, and end with their holder, also when
it is killed.
"""

import errno
import fcntl
import hashlib
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from serve_app.errors import LoraSourceUnavailable
from serve_app.files import NotRegular, read_regular

_STALE_S = 24 * 3600  # a download that nobody has resumed for so long
_KEY = re.compile(r"(?:etag-|url-)?[0-9a-f]{64}")
# A FIFO in the place of a file must not be waited at, and a link must not be followed.
_UNFOOLED = os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
_REF_BYTES = 256
_CREATE = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
_READ_BYTES = 1 << 20
_GRAIN_BYTES = 64 << 20  # how much may arrive before the cache's size is looked at again


@dataclass(frozen=True, slots=True)
class _Entry:
    path: Path
    size: int
    used: float


class CacheDirectory:
    """Files by their SHA-256, the names that stand for them, and partial downloads.

        blobs/<sha256>      complete files, content-addressed; never touched, so that their stat signatures stay
        used/<sha256>       empty; the time of modification is that of the last use of the blob
        refs/<content>      which SHA-256 a content id turned out to have
        partial/<content>   downloads; whoever makes one has it locked

    A file in use is locked by its users, so that no process removes it.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        for folder in ("blobs", "used", "refs", "partial"):
            (directory / folder).mkdir(parents=True, exist_ok=True)
        with self.guarded():
            self._sweep()

    def blob(self, sha256: str) -> Path:
        """Return where the complete file is, if it is here."""
        return self._directory / "blobs" / _checked(sha256)

    def partial(self, content: str) -> Path:
        """Return where a download of it is made."""
        return self._directory / "partial" / _checked(content)

    def sha256_of(self, content: str) -> str | None:
        """Return the SHA-256 that `content` turned out to have; None if it was never here."""
        return _named_by(self._ref(content))

    def remember(self, content: str, sha256: str) -> None:
        """Have `sha256_of` answer so. Only within `guarded`."""
        fresh = self._directory / "refs" / ".new"
        fresh.unlink(missing_ok=True)  # whatever it is
        fresh.write_text(sha256)
        fresh.replace(self._ref(content))

    def used(self, sha256: str) -> None:
        """Record that the complete file is in use now: the least recently used goes first (LRU)."""
        self._use(sha256).touch()

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Exclude all other processes and threads while the block runs. Nothing is downloaded within."""
        with created(self._directory / "lock") as file:
            wait_exclusively(file)
            yield

    def lacking(self, more: int, limit: int) -> int:
        """Make room for `more` bytes within `limit` and on the disk; return how many bytes are still lacking.

        The least recently used files are removed; those in use stay.
        """
        with self.guarded():
            entries = sorted(self._entries(), key=lambda entry: entry.used)
            lacking = max(
                sum(entry.size for entry in entries) + more - limit,
                more - shutil.disk_usage(self._directory).free,
            )
            for entry in entries:
                if lacking <= 0:
                    break
                if _remove_unused(entry.path):
                    self._use(entry.path.name).unlink(missing_ok=True)
                    lacking -= entry.size
        return max(lacking, 0)

    def remove_older(self, than_s: float) -> int:
        """Remove the files that nobody has used for so many seconds; those in use stay. Return how many went."""
        removed = 0
        with self.guarded():
            for entry in self._entries():
                if time.time() - entry.used > than_s and _remove_unused(entry.path):
                    self._use(entry.path.name).unlink(missing_ok=True)
                    removed += 1
        return removed

    def _use(self, content: str) -> Path:
        return self._directory / "used" / _checked(content)

    def _ref(self, content: str) -> Path:
        return self._directory / "refs" / _checked(content)

    def _entries(self) -> Iterator[_Entry]:
        for folder in ("blobs", "partial"):
            for path in (self._directory / folder).iterdir():
                try:
                    found = path.stat()
                except FileNotFoundError:  # a download that has just ended
                    continue
                yield _Entry(path, found.st_size, max(found.st_mtime, self._last_use_s(path.name)))

    def _last_use_s(self, content: str) -> float:
        try:
            return self._use(content).stat().st_mtime
        except FileNotFoundError:  # a download, or a file that nobody has asked for since
            return 0.0

    def _sweep(self) -> None:
        for entry in self._entries():
            if entry.path.parent.name == "partial" and time.time() - entry.used > _STALE_S:
                _remove_unused(entry.path)
        for use in (self._directory / "used").iterdir():
            if not self.blob(use.name).is_file():
                use.unlink(missing_ok=True)
        for ref in (self._directory / "refs").iterdir():
            sha256 = _named_by(ref)
            if sha256 is None or not self.blob(sha256).is_file():
                ref.unlink()


def _named_by(ref: Path) -> str | None:
    """Return the SHA-256 in a file of `refs`; None where there is none."""
    try:
        sha256 = read_regular(ref, limit=_REF_BYTES).decode(errors="replace")
    except (FileNotFoundError, NotRegular):
        return None
    return sha256 if _KEY.fullmatch(sha256) else None  # a crash of the machine may have left it empty


def _checked(key: str) -> str:
    if _KEY.fullmatch(key) is None:
        raise ValueError(f"not the name of a content: {key[:100]!r}")
    return key


def _remove_unused(path: Path) -> bool:
    file = opened(path)
    if file is None:
        return False
    with closing(file):
        removable = lock_exclusively(file) and is_at(file, path)
        if removable:
            path.unlink()
        return removable


class Partial:
    """The first `size` bytes of a file, hashed as they arrive. It has one writer, who holds its lock."""

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
    """Return the error for the file `name`, for which there is no room."""
    return LoraSourceUnavailable(f"LoRA {name!r} cannot be downloaded: {problem}", {"path": name})


def created(path: Path) -> FileIO:
    """Open the regular file `path` for reading and writing, with what is in it already.

    Raises:
        NotRegular: something else has that name.
        OSError: it cannot be opened or made.
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
    """Lock `file` if nobody else has; return whether that was so."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def wait_exclusively(file: FileIO) -> None:
    """Lock `file` as soon as nobody else has."""
    fcntl.flock(file, fcntl.LOCK_EX)


def share(file: FileIO) -> None:
    """Lock `file` together with others who share it; an exclusive lock of this holder becomes a shared one."""
    fcntl.flock(file, fcntl.LOCK_SH)


def is_at(file: FileIO, path: Path) -> bool:
    """Return whether `path` still names the open `file`: it may have been moved or removed before it was locked."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
