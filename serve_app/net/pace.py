"""Minimum throughput of a server (slow-loris protection for a client): bytes per second of waiting, over a window.

Example:
    floor = SpeedFloor(policy)
    with floor.waiting() as received:
        data = received(sock.recv(4096))    # TooSlow once a window has passed with too little in it

Only time spent waiting counts: a reader that is slow itself is no fault of the server.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from serve_app.net.retry import TooSlow


class Pace(Protocol):
    """How fast a server must be; see `guard.NetPolicy`."""

    @property
    def min_bytes_per_s(self) -> float:
        """The floor."""

    @property
    def speed_window_s(self) -> float:
        """The seconds of waiting over which it is measured."""


class SpeedFloor:
    """Measures one connection. Not thread-safe."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._waited_s = 0.0
        self._bytes = 0

    @property
    def left_s(self) -> float:
        """Return how long to wait at most until `waiting` judges again; always a little."""
        return max(self._pace.speed_window_s - self._waited_s, 0.001)

    @contextmanager
    def waiting(self) -> Iterator[Callable[[bytes], bytes]]:
        """Count what arrives in the block, which is told by calling what this yields, against the time that it takes.

        Raises:
            TooSlow: a window has passed, and the server stayed below the floor in it.
        """
        started = time.monotonic()
        yield self._received
        self._waited_s += time.monotonic() - started
        if self._waited_s < self._pace.speed_window_s:
            return
        if self._bytes < self._pace.min_bytes_per_s * self._waited_s:
            raise TooSlow("its server sends too slowly")
        self._waited_s, self._bytes = 0.0, 0

    def _received(self, data: bytes) -> bytes:
        self._bytes += len(data)
        return data
