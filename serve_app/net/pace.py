"""Minimum throughput of a server (slow-loris protection for a client): bytes per second of waiting, over a window.

Example:
    floor = SpeedFloor(policy)
    with floor.waiting() as received:
        data = received(sock.recv(4096))    # TooSlow once a window has passed with too little in it

Only the time of waiting counts, because a slow reader is not the server's fault.
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
        """Return the lowest allowed throughput."""

    @property
    def speed_window_s(self) -> float:
        """Return the seconds of waiting over which it is measured."""


class SpeedFloor:
    """Measures one connection. Not thread-safe."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._waited_s = 0.0
        self._bytes = 0

    @property
    def left_s(self) -> float:
        """Return the timeout for the next wait: the rest of the window, but never 0."""
        return max(self._pace.speed_window_s - self._waited_s, 0.001)

    @contextmanager
    def waiting(self) -> Iterator[Callable[[bytes], bytes]]:
        """Measure the throughput of the block, which passes received data to the function that this yields.

        Raises:
            TooSlow: a window has passed, and the throughput in it was below the floor.
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
