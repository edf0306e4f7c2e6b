"""The announcer: wake-up calls from the API to the Dispatcher, coalesced (debounced), without waiting for them.

They only save time: without a call, the Dispatcher finds everything at its next sweep of the store.

Example:
    announcer = DispatcherAnnouncer(dispatcher, of_renders=not store.notifies)
    announcer.queued()
    announcer.canceled(request_id)
"""

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from typing import Any

from ray.serve.handle import DeploymentHandle

from serve_app.results import GeneratorRuntime
from serve_app.tasks import detached

logger = logging.getLogger("ray.serve.wan")

_FLEET_WITHIN_S = 1.0
ANNOUNCE_EVERY_S = 0.05  # far below the time of a render, so a burst of requests costs few calls


class DispatcherAnnouncer:
    """Calls the Dispatcher for a new render at once, then once for all that arrive shortly after."""

    def __init__(self, dispatcher: DeploymentHandle, *, of_renders: bool) -> None:
        """Take the Dispatcher; `of_renders` is false if the database itself notifies it of new renders."""
        self._dispatcher = dispatcher
        self._of_renders = of_renders
        self._pending = asyncio.Event()
        self._calls: set[asyncio.Task[None]] = set()
        self._start(self._announce())

    def queued(self) -> None:
        """Announce that renders were queued."""
        if self._of_renders:
            self._pending.set()

    def canceled(self, request_id: str) -> None:
        """Announce that a request was canceled."""
        self._start(self._call(self._dispatcher.canceled, request_id))

    async def fleet(self) -> Mapping[str, GeneratorRuntime] | None:
        """Return the Generators that the Dispatcher knows; None if it does not answer within a second."""
        try:
            return await asyncio.wait_for(self._fleet(), _FLEET_WITHIN_S)
        except Exception as error:
            logger.warning("the dispatcher did not say which Generators there are: %r", error)
            return None

    async def _fleet(self) -> Mapping[str, GeneratorRuntime]:
        fleet: Mapping[str, GeneratorRuntime] = await self._dispatcher.fleet.remote()
        return fleet

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = detached(coroutine)
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _announce(self) -> None:
        while True:
            await self._pending.wait()
            self._pending.clear()
            await self._call(self._dispatcher.queued)
            await asyncio.sleep(ANNOUNCE_EVERY_S)

    async def _call(self, method: DeploymentHandle, *args: str) -> None:
        try:
            await method.remote(*args)
        except Exception as error:
            logger.warning("the dispatcher did not hear of news; it finds them at its next sweep: %r", error)
