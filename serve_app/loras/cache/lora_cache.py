"""Downloaded LoRA files of one node, known by their content, for all processes that share a directory."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from serve_app.errors import ConfigurationInvalid, LoraSourceUnavailable
from serve_app.loras.cache import locks
from serve_app.loras.cache.partial import Partial, full
from serve_app.loras.cache.shelf import Shelf

Fill = Callable[[Partial], None]  # completes the file
_POLL_S = 0.05
_SHA256_DIGITS = 64


class DigestMismatch(Exception):
    """What was downloaded, twice from its start, is not what it was said to be."""


@dataclass(frozen=True, slots=True)
class CachedFile:
    """A complete file. `sha256` is hex, of the bytes as they arrived."""

    path: Path
    sha256: str


@dataclass(frozen=True, slots=True)
class _Held:
    """Closing `file` ends its use."""

    file: FileIO
    sha256: str


class LoraCache:
    """A directory of at most `max_bytes`, from which the least recently used files go, but none that is in use.

    Thread-safe, also between processes; it blocks. A content id is a SHA-256, or "etag-" or "url-" and 64 hex digits.

    Raises:
        ConfigurationInvalid: nothing can be kept in the directory.
    """

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        try:
            self._shelf = Shelf(directory)
        except OSError as error:
            raise ConfigurationInvalid(
                f"lora_cache_dir is no directory that can be used: {error.strerror}: {directory}",
                {"arg": "lora_cache_dir"},
            ) from error

    @contextmanager
    def hold(self, content: str, fill: Fill, name: str, *, wait_s: float) -> Iterator[CachedFile]:
        """The file with that content, in use as long as the block runs.

        If it is not here, `fill` completes it, while others who want it wait, up to `wait_s` seconds. A download that
        was interrupted, even by a kill, is given to `fill` as far as it came. `name` is for errors.

        Raises:
            LoraSourceUnavailable: there is no room, or another download of it takes too long.
            DigestMismatch: `content` is a SHA-256, and twice something else arrived.
            OSError: the disk failed.
            Whatever `fill` raises.
        """
        with self._yielded(self._used(content) or self._downloaded(content, fill, name, wait_s)) as file:
            yield file

    @contextmanager
    def hold_new(self, key: str, fill: Fill, name: str, *, wait_s: float) -> Iterator[CachedFile]:
        """As `hold`, for a file that is known by where it comes from only: it is downloaded every time, from its start.

        Its bytes can be held by their SHA-256 from then on.
        """

        def anew(partial: Partial) -> None:
            partial.restart()
            fill(partial)

        path, file = self._claimed(key, name, wait_s)
        with self._yielded(self._completed(path, file, key, anew, name)) as found:
            yield found

    @contextmanager
    def _yielded(self, held: _Held) -> Iterator[CachedFile]:
        with closing(held.file):
            yield CachedFile(self._shelf.blob(held.sha256), held.sha256)

    def _used(self, content: str) -> _Held | None:
        sha256 = content if _is_sha256(content) else self._shelf.sha256_of(content)
        if sha256 is None:
            return None
        path = self._shelf.blob(sha256)
        file = locks.opened(path)
        if file is None:
            return None
        locks.share(file)
        if not locks.is_at(file, path):  # removed before it was locked
            file.close()
            return None
        self._shelf.used(sha256)
        return _Held(file, sha256)

    def _downloaded(self, content: str, fill: Fill, name: str, wait_s: float) -> _Held:
        path, file = self._claimed(content, name, wait_s)
        held = self._used(content)  # somebody else may have been faster
        if held is None:
            return self._completed(path, file, content, fill, name)
        path.unlink()
        file.close()
        return held

    def _claimed(self, content: str, name: str, wait_s: float) -> tuple[Path, FileIO]:
        """The file to download into, for this caller alone."""
        path = self._shelf.partial(content)
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
            file.close()  # and with it the lock; the next one goes on from here
            raise

    def _published(self, path: Path, file: FileIO, content: str, sha256: str) -> _Held:
        with self._shelf.guarded():
            held = self._used(sha256)
            if held is None:
                path.rename(self._shelf.blob(sha256))
                locks.share(file)
                held = _Held(file, sha256)
            else:
                path.unlink()
                file.close()
            if not _is_sha256(content):
                self._shelf.remember(content, sha256)
        return held

    def _make_room(self, more: int, name: str) -> None:
        lacking = self._shelf.lacking(more, self._max_bytes) if more <= self._max_bytes else more
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
