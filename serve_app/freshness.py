"""Cached value with an expiry time, refreshed by one caller (single-flight) or in the background.

The second way is known as stale-while-revalidate (RFC 5861).

Example:
    state = Fresh(look, for_s=5)
    await state.now()  # never older than 5 s
    await state.soon(within_s=1, default=None)  # the last known value; only the first caller waits, at most 1 s
"""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Generic, TypeVar

from serve_app.tasks import detached

Value = TypeVar("Value")


class Fresh(Generic[Value]):
    """Keeps the last result of `look`, which must not raise. Use it on one event loop."""

    def __init__(self, look: Callable[[], Awaitable[Value]], for_s: Callable[[Value], float]) -> None:
        """Take the function that reads the value, and `for_s`, the seconds for which it counts as fresh."""
        self._look = look
        self._for_s = for_s
        self._known: tuple[Value] | None = None
        self._looked = 0.0
        self._looking: asyncio.Task[Value] | None = None

    async def now(self) -> Value:
        """Return a fresh value; concurrent callers share one read."""
        if self._known is not None and monotonic() - self._looked < self._for_s(self._known[0]):
            return self._known[0]
        return await asyncio.shield(self._started())

    async def soon(self, within_s: float, default: Value) -> Value:
        """Return the last known value; if it is old, refresh it in the background.

        Before the first value is known, wait for it at most `within_s` seconds, then return `default`.
        """
        if self._known is None:
            await asyncio.wait({self._started()}, timeout=within_s)
            return default if self._known is None else self._known[0]
        if monotonic() - self._looked >= self._for_s(self._known[0]):
            self._started()
        return self._known[0]

    def _started(self) -> "asyncio.Task[Value]":
        if self._looking is None:
            self._looking = detached(self._looked_again())
        return self._looking

    async def _looked_again(self) -> Value:
        try:
            value = await self._look()
            self._known, self._looked = (value,), monotonic()
            return value
        finally:
            self._looking = None
