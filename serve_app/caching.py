"""LRU cache with single-flight, and stat signatures, which are cache keys for answers about files.

Example:
    digests: SingleFlightCache[FileSignature, str] = SingleFlightCache(512)
    sha256 = digests.get(FileSignature.of(path), partial(_digest, path))
"""

import os
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Generic, Self, TypeVar

from cachetools import LRUCache

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class SingleFlightCache(Generic[Key, Value]):
    """Keeps the `capacity` most recently used values; threads that need the same missing one compute it once.

    Thread-safe. For single-flight in an event loop see `serve_app.batching.SharedAnswers`.
    """

    def __init__(self, capacity: int) -> None:
        self._lock = Lock()
        self._entries: LRUCache[Key, Future[Value]] = LRUCache(capacity)

    def get(self, key: Key, compute: Callable[[], Value], *, keep: Callable[[Value], bool] | None = None) -> Value:
        """Return the value of `key`; compute it if it is missing, or wait if another thread is computing it.

        A value for which `keep` is false is returned to all waiting threads, but not cached. An exception is raised in
        all of them, and not cached, either.
        """
        with self._lock:
            known = self._entries.get(key)
            future = self._entries.setdefault(key, Future())
        return future.result() if known is not None else self._computed(key, future, compute, keep)

    def peek(self, key: Key) -> Value | None:
        """Return the value of `key` if it is cached, else None; do not wait for one that is being computed."""
        with self._lock:
            future = self._entries.get(key)
        return future.result() if future is not None and future.done() else None

    def put(self, key: Key, value: Value) -> None:
        """Cache `value`, which was computed elsewhere."""
        future: Future[Value] = Future()
        future.set_result(value)
        with self._lock:
            self._entries[key] = future

    def _computed(
        self,
        key: Key,
        future: "Future[Value]",
        compute: Callable[[], Value],
        keep: Callable[[Value], bool] | None,
    ) -> Value:
        try:
            value = compute()
            if keep is not None and not keep(value):
                self._forget(key, future)
        except BaseException as error:
            self._forget(key, future)
            future.set_exception(error)
            raise
        future.set_result(value)
        return value

    def _forget(self, key: Key, future: "Future[Value]") -> None:
        with self._lock:
            if self._entries.get(key) is future:
                del self._entries[key]


@dataclass(frozen=True, slots=True)
class FileSignature:
    """The `stat` values that change whenever the content of a file may have changed. Times are in nanoseconds."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, path: Path) -> Self:
        """Return the signature of the file at `path`. Raises OSError."""
        return cls.of_status(path.stat())

    @classmethod
    def of_status(cls, found: os.stat_result) -> Self:
        """Return the signature of the file that has this status."""
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)

    @property
    def rested_s(self) -> float:
        """Return the seconds since the last change by ctime; tools can set mtime to any value, even in the future."""
        return (time.time_ns() - self.ctime_ns) / 1e9
