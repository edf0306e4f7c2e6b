"""The files of a cache directory, and which of them go when there is no room."""

import re
import shutil
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from serve_app.loras.cache import locks

_STALE_S = 24 * 3600  # a download that nobody has resumed for so long
_KEY = re.compile(r"(?:etag-|url-)?[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class _Entry:
    path: Path
    size: int
    used: float


class Shelf:
    """Files by their SHA-256, the names that stand for them, and downloads on their way.

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
        """Where the complete file is, if it is here."""
        return self._directory / "blobs" / _checked(sha256)

    def partial(self, content: str) -> Path:
        """Where a download of it is made."""
        return self._directory / "partial" / _checked(content)

    def sha256_of(self, content: str) -> str | None:
        """What `content` turned out to be; None if it was never here."""
        try:
            sha256 = self._ref(content).read_text()
        except FileNotFoundError:
            return None
        return sha256 if _KEY.fullmatch(sha256) else None  # a crash of the machine may have left it empty

    def remember(self, content: str, sha256: str) -> None:
        """Have `sha256_of` answer so. Only within `guarded`."""
        fresh = self._directory / "refs" / ".new"
        fresh.write_text(sha256)
        fresh.replace(self._ref(content))

    def used(self, sha256: str) -> None:
        """Record that the complete file is in use now: the least recently used goes first (LRU)."""
        self._use(sha256).touch()

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Alone among all processes and threads. For moments only: nothing is downloaded within."""
        with locks.created(self._directory / "lock") as file:
            locks.wait_exclusively(file)
            yield

    def lacking(self, more: int, limit: int) -> int:
        """Bytes that are missing for `more` bytes to fit into `limit` and onto the disk, after removing what can go.

        Files go that were not used for the longest time; those in use stay.
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
            if not (self._directory / "blobs" / ref.read_text()).is_file():
                ref.unlink()


def _checked(key: str) -> str:
    if _KEY.fullmatch(key) is None:
        raise ValueError(f"not the name of a content: {key[:100]!r}")
    return key


def _remove_unused(path: Path) -> bool:
    file = locks.opened(path)
    if file is None:
        return False
    with closing(file):
        removable = locks.lock_exclusively(file) and locks.is_at(file, path)
        if removable:
            path.unlink()
        return removable
