"""A value that is looked up again when it is too old (single-flight, stale-while-revalidate).

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
    """Keeps what `look` returned last. `look` must not raise. Use it on one event loop."""

    def __init__(self, look: Callable[[], Awaitable[Value]], for_s: Callable[[Value], float]) -> None:
        """`for_s` says for how many seconds a value counts as fresh."""
        self._look = look
        self._for_s = for_s
        self._known: tuple[Value] | None = None
        self._looked = 0.0
        self._looking: asyncio.Task[Value] | None = None

    async def now(self) -> Value:
        """Return a fresh value; callers that wait share one look."""
        if self._known is not None and monotonic() - self._looked < self._for_s(self._known[0]):
            return self._known[0]
        return await asyncio.shield(self._started())

    async def soon(self, within_s: float, default: Value) -> Value:
        """Return what is known, and look again behind the caller's back where it is old.

        The first caller waits for a look, but no longer than `within_s`, and then gets `default`.
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
