"""The Ingress: the HTTP API on any number of stateless replicas."""

import asyncio
import contextvars
import gc
import logging
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.lora_access import lora_resolver
from serve_app.api.app import create_app
from serve_app.api.dependencies import Services
from serve_app.api.forecast import Forecaster
from serve_app.jobs.store import JobStore
from serve_app.outputs import OutputStore
from serve_app.plan import ServicePlan

logger = logging.getLogger("ray.serve")


# New objects after which Python looks for garbage; the same as in Serve's proxies. With Python's own 700, a run of the
# load benchmark has it look 1,100 times and not 38.
_GC_THRESHOLD = 10_000

_ANNOUNCE_EVERY_S = 0.05  # far below a render's time, and a burst of requests costs a few calls only


class DispatcherAnnouncer:
    """Calls the Dispatcher without waiting: for new renders at once, then once for all that come shortly after."""

    def __init__(self, dispatcher: DeploymentHandle, *, of_renders: bool) -> None:
        """`of_renders` is off where the database itself tells the Dispatcher of new renders."""
        self._dispatcher = dispatcher
        self._of_renders = of_renders
        self._pending = asyncio.Event()
        self._calls: set[asyncio.Task[None]] = set()
        self._start(self._announce())

    def queued(self) -> None:
        """Renders were queued."""
        if self._of_renders:
            self._pending.set()

    def canceled(self, request_id: str) -> None:
        """A request was canceled."""
        self._start(self._call(self._dispatcher.canceled, request_id))

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        # A context of its own: in a request's, a client that disconnects would cancel the call.
        task = asyncio.get_running_loop().create_task(coroutine, context=contextvars.Context())
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _announce(self) -> None:
        while True:
            await self._pending.wait()
            self._pending.clear()
            await self._call(self._dispatcher.queued)
            await asyncio.sleep(_ANNOUNCE_EVERY_S)

    async def _call(self, method: DeploymentHandle, *args: str) -> None:
        try:
            await method.remote(*args)
        except Exception as error:
            logger.warning("the dispatcher did not hear of news; it finds them at its next sweep: %r", error)


@serve.ingress()
class Ingress:
    """Validates requests, makes them durable, answers from the store. It holds nothing of its own."""

    def __init__(self, plan: ServicePlan, dispatcher: DeploymentHandle) -> None:
        self._built = plan  # by the args alone
        store = JobStore(plan.settings.database_url)
        self._services = Services(
            plan=plan,
            store=store,
            loras=lora_resolver(plan),
            outputs=OutputStore.from_url(plan.settings.output_url),
            announcer=DispatcherAnnouncer(dispatcher, of_renders=not store.notifies),
            forecaster=Forecaster(plan, store),
        )
        self._app = create_app(self._services)
        gc.set_threshold(_GC_THRESHOLD)

    def reconfigure(self, user_config: dict[str, Any] | None) -> None:
        """Take over what `user_config` changes, from the next request on."""
        self._services = replace(self._services, plan=self._built.retuned(user_config))
        self._app.state.services = self._services

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Serve once this replica is constructed."""
        return self._app
