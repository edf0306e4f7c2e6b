"""Health of a Generator: starvation check, and self-termination of a broken replica."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from serve_app.errors import StoreUnavailable
from serve_app.jobs.coordination import OUTPUTS_FAIL, dispatcher_of
from serve_app.jobs.store import JobStore

logger = logging.getLogger("ray.serve.wan")

STARVED_S = 15.0  # far beyond any gap between two renders while some wait
STARVED_CHECKS = 3  # in a row


def leave_process(why: str) -> None:
    """End this process at once; Serve starts another one.

    A replica that fails its health checks is stopped gracefully. But then Serve would wait for the call or the reserved
    slot that never ends, and the GPU would stay occupied.
    """
    logger.critical("%s; this replica ends itself, so that another one takes its place", why)
    logging.shutdown()
    os._exit(1)


class Starvation:
    """Detects that renders of a model wait, its Dispatcher is alive, but none reaches this replica.

    If a Dispatcher dies after it has reserved a replica and before it sends a render, the replica's only slot stays
    reserved forever. Only a new process frees it.
    """

    def __init__(self, store: JobStore, model: str) -> None:
        self._queue = store.queue(model)
        self._dispatcher = store.leadership(dispatcher_of(model))
        self._pause = store.leadership(OUTPUTS_FAIL)
        self._at_work = 0
        self._idle_since = monotonic()
        self._idle_checks = 0

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Count this replica as busy while the block runs."""
        self._at_work += 1
        try:
            yield
        finally:
            self._at_work -= 1
            self._idle_since = monotonic()

    async def check(self) -> bool:
        """Check once; return True at the `STARVED_CHECKS`th consecutive time that this replica got no render."""
        idle = not self._at_work and monotonic() - self._idle_since > STARVED_S
        self._idle_checks = self._idle_checks + 1 if idle and await self._renders_wait() else 0
        return self._idle_checks == STARVED_CHECKS

    async def _renders_wait(self) -> bool:
        try:
            waits = max((await self._queue.oldest_waits_s()).values(), default=0.0) > STARVED_S
            # While outputs cannot be stored, the Dispatcher claims nothing on purpose.
            return waits and await self._dispatcher.is_held() and not await self._pause.is_held()
        except StoreUnavailable:
            return False  # then no Dispatcher can dispatch
