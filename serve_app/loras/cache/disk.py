"""On-disk layout of the LoRA cache: content-addressed blobs, their LRU order, and eviction of what is not in use.

Example:
    directory = CacheDirectory(Path("/var/cache/loras"))
    missing = directory.lacking(len(chunk), limit=100 << 30)  # evicts; bytes that are still missing
"""

import re
import shutil
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from serve_app.files import NotRegular, read_regular
from serve_app.loras.cache.locks import created, is_at, lock_exclusively, opened, wait_exclusively

_STALE_S = 24 * 3600  # a download that was not resumed for this long is removed
_KEY = re.compile(r"(?:etag-|url-)?[0-9a-f]{64}")
_REF_BYTES = 256


@dataclass(frozen=True, slots=True)
class _Entry:
    path: Path
    size: int
    used: float


class CacheDirectory:
    """Files by their SHA-256, references to them, and partial downloads.

        blobs/<sha256>      complete files, content-addressed; never modified, so that their stat signatures stay valid
        used/<sha256>       empty; its time of modification is the time of the last use of the blob
        refs/<content>      the SHA-256 of a content id that was downloaded
        partial/<content>   downloads; locked by the process that makes it

    A file in use is locked by its users, so that no process removes it.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        for folder in ("blobs", "used", "refs", "partial"):
            (directory / folder).mkdir(parents=True, exist_ok=True)
        with self.guarded():
            self._sweep()

    def blob(self, sha256: str) -> Path:
        """Return the path of the complete file, whether or not it exists."""
        return self._directory / "blobs" / _checked(sha256)

    def partial(self, content: str) -> Path:
        """Return the path of its partial download, whether or not it exists."""
        return self._directory / "partial" / _checked(content)

    def sha256_of(self, content: str) -> str | None:
        """Return the SHA-256 of the bytes of `content`; None if it was never downloaded."""
        return _named_by(self._ref(content))

    def remember(self, content: str, sha256: str) -> None:
        """Record the SHA-256 of `content` for `sha256_of`. Call it within `guarded` only."""
        fresh = self._directory / "refs" / ".new"
        fresh.unlink(missing_ok=True)  # it may be a link or a FIFO
        fresh.write_text(sha256)
        fresh.replace(self._ref(content))

    def used(self, sha256: str) -> None:
        """Record that the complete file is in use now: the least recently used one is evicted first (LRU)."""
        self._use(sha256).touch()

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Exclude all other processes and threads while the block runs (a lock); do not download in the block."""
        with created(self._directory / "lock") as file:
            wait_exclusively(file)
            yield

    def lacking(self, more: int, limit: int) -> int:
        """Evict until `more` bytes fit within `limit` and on the disk; return how many bytes are still missing.

        The least recently used files are evicted first. Files in use stay.
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
        """Remove the files that were not used for `than_s` seconds, but none in use; return how many."""
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
        except FileNotFoundError:  # a download, or a file that was never used again
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
    """Return the SHA-256 in a file of `refs`; None if there is none."""
    try:
        sha256 = read_regular(ref, limit=_REF_BYTES).decode(errors="replace")
    except (FileNotFoundError, NotRegular):
        return None
    return sha256 if _KEY.fullmatch(sha256) else None  # the machine may have crashed before it was written


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
