"""Content-addressed LRU cache of downloaded LoRA files, with single-flight downloads, shared by a node's processes.

Example:
    cache = LoraCache(directory, max_bytes)
    with cache.hold(content, fill, name, wait_s=60) as cached:    # `fill` downloads what is missing
        cached.path, cached.sha256
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path

from serve_app.errors import ConfigurationInvalid, LoraSourceUnavailable
from serve_app.loras.cache import locks
from serve_app.loras.cache.disk import CacheDirectory
from serve_app.loras.cache.partial import Partial, full

Fill = Callable[[Partial], None]  # completes the file
_LOOK_EVERY_S = 3600.0
_POLL_S = 0.05
_SHA256_DIGITS = 64


class DigestMismatch(Exception):
    """Two complete downloads had another SHA-256 than expected."""


@dataclass(frozen=True, slots=True)
class CachedFile:
    """A complete file. `sha256` is hex, of the bytes as they arrived."""

    path: Path
    sha256: str
    downloaded: bool = True  # by this call of `hold`


@dataclass(frozen=True, slots=True)
class _Held:
    """Closing `file` ends its use."""

    file: FileIO
    sha256: str


class LoraCache:
    """A directory of at most `max_bytes`: the least recently used files are evicted, but none that is in use.

    With `longest_s`, files that were not used for this many seconds are removed, too, when another one is used.

    Thread-safe, also between processes; calls block. A content id is a SHA-256, or "etag-" or "url-" and 64 hex digits.

    Raises:
        ConfigurationInvalid: the directory cannot be created or written.
    """

    def __init__(self, directory: Path, max_bytes: int, *, longest_s: float | None = None) -> None:
        self._max_bytes = max_bytes
        self._longest_s = longest_s
        self._looked_at = -math.inf
        try:
            self._directory = CacheDirectory(directory)
        except OSError as error:
            raise ConfigurationInvalid(
                f"lora_cache_dir is no directory that can be used: {error.strerror}: {directory}",
                {"arg": "lora_cache_dir"},
            ) from error

    @contextmanager
    def hold(self, content: str, fill: Fill, name: str, *, wait_s: float) -> Iterator[CachedFile]:
        """Hold the file with that content while the block runs: it is not evicted.

        If it is missing, `fill` downloads it, while other callers wait for it up to `wait_s` seconds (single-flight).
        `fill` gets an interrupted download, even after a kill, with the bytes that had arrived. `name` is for errors.

        Raises:
            LoraSourceUnavailable: there is no room, or another process takes too long to download it.
            DigestMismatch: `content` is a SHA-256, and two downloads had another one.
            OSError: the disk failed.
            Whatever `fill` raises.
        """
        kept = self._used(content)
        self._remove_old()
        with self._yielded(kept or self._downloaded(content, fill, name, wait_s)) as file:
            yield file if kept is None else replace(file, downloaded=False)

    @contextmanager
    def hold_new(self, key: str, fill: Fill, name: str, *, wait_s: float) -> Iterator[CachedFile]:
        """Hold a file that has no validator (ETag or date): download it every time, from its start.

        Afterwards `hold` finds it by its SHA-256.
        """

        def anew(partial: Partial) -> None:
            partial.restart()
            fill(partial)

        path, file = self._claimed(key, name, wait_s)
        with self._yielded(self._completed(path, file, key, anew, name)) as found:
            yield found

    def _remove_old(self) -> None:
        """Remove expired files; at most once in a while, because this lists the directory."""
        if self._longest_s is None or time.monotonic() - self._looked_at < min(_LOOK_EVERY_S, self._longest_s):
            return
        self._looked_at = time.monotonic()
        self._directory.remove_older(self._longest_s)

    @contextmanager
    def _yielded(self, held: _Held) -> Iterator[CachedFile]:
        with closing(held.file):
            yield CachedFile(self._directory.blob(held.sha256), held.sha256)

    def _used(self, content: str) -> _Held | None:
        sha256 = content if _is_sha256(content) else self._directory.sha256_of(content)
        if sha256 is None:
            return None
        path = self._directory.blob(sha256)
        file = locks.opened(path)
        if file is None:
            return None
        locks.share(file)
        if not locks.is_at(file, path):  # removed before it was locked
            file.close()
            return None
        self._directory.used(sha256)
        return _Held(file, sha256)

    def _downloaded(self, content: str, fill: Fill, name: str, wait_s: float) -> _Held:
        path, file = self._claimed(content, name, wait_s)
        held = self._used(content)  # another process may have been faster
        if held is None:
            return self._completed(path, file, content, fill, name)
        path.unlink()
        file.close()
        return held

    def _claimed(self, content: str, name: str, wait_s: float) -> tuple[Path, FileIO]:
        """Return the file to download into, locked for this caller."""
        path = self._directory.partial(content)
        end = time.monotonic() + wait_s
        while True:
            file = locks.created(path)
            if locks.lock_exclusively(file) and locks.is_at(file, path):
                return path, file
            file.close()
            if time.monotonic() >= end:
                raise LoraSourceUnavailable(
                    f"LoRA {name!r} is still being downloaded for another request; retry later", {"path": name}
                )
            time.sleep(_POLL_S)

    def _completed(self, path: Path, file: FileIO, content: str, fill: Fill, name: str) -> _Held:
        try:
            partial = Partial(file, name, lambda more: self._make_room(more, name))
            _fill(partial, content, fill)
            partial.finish()
            return self._published(path, file, content, partial.sha256)
        except BaseException:
            file.close()  # this releases the lock; the next holder resumes the download
            raise

    def _published(self, path: Path, file: FileIO, content: str, sha256: str) -> _Held:
        with self._directory.guarded():
            held = self._used(sha256)
            if held is None:
                path.rename(self._directory.blob(sha256))
                locks.share(file)
                held = _Held(file, sha256)
            else:
                path.unlink()
                file.close()
            if not _is_sha256(content):
                self._directory.remember(content, sha256)
        return held

    def _make_room(self, more: int, name: str) -> None:
        lacking = self._directory.lacking(more, self._max_bytes) if more <= self._max_bytes else more
        if lacking:
            raise full(
                name, f"{lacking} bytes are missing in the LoRA cache, whose files are in use; see lora_cache_gib"
            )


def _fill(partial: Partial, content: str, fill: Fill) -> None:
    fill(partial)
    if not _is_sha256(content) or partial.sha256 == content:
        return
    partial.restart()  # what was resumed may have been damaged
    fill(partial)
    if partial.sha256 != content:
        partial.restart()
        raise DigestMismatch


def _is_sha256(content: str) -> bool:
    return len(content) == _SHA256_DIGITS
