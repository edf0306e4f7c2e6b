"""The Ingress: the HTTP API on any number of stateless replicas."""

import asyncio
import contextvars
import logging

from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.lora_access import lora_resolver
from serve_app.api.app import create_app
from serve_app.api.services import Services
from serve_app.jobs.store import JobStore
from serve_app.outputs.store import OutputStore
from serve_app.plan import ServicePlan

logger = logging.getLogger("ray.serve")


_ANNOUNCE_EVERY_S = 0.02  # far below a render's time, and a burst of requests costs a few calls only


class Announcer:
    """Tells the Dispatcher that renders are queued: at once, then one call for all that come shortly after."""

    def __init__(self, dispatcher: DeploymentHandle) -> None:
        self._wake = dispatcher.wake
        self._pending = asyncio.Event()
        # A context of its own: in a request's, a client that disconnects would cancel the call.
        self._task = asyncio.get_running_loop().create_task(self._run(), context=contextvars.Context())

    def __call__(self) -> None:
        """Announce without waiting."""
        self._pending.set()

    async def _run(self) -> None:
        while True:
            await self._pending.wait()
            self._pending.clear()
            try:
                await self._wake.remote()
            except Exception as error:
                logger.warning("the dispatcher did not hear of new renders: %r", error)
            await asyncio.sleep(_ANNOUNCE_EVERY_S)


@serve.ingress()
class Ingress:
    """Validates requests, makes them durable, answers from the store. It holds nothing of its own."""

    def __init__(self, plan: ServicePlan, dispatcher: DeploymentHandle) -> None:
        settings = plan.settings
        self._services = Services(
            plan=plan,
            store=JobStore(settings.database_url),
            loras=lora_resolver(plan),
            outputs=OutputStore.from_url(settings.output_url),
            announce=Announcer(dispatcher),
        )

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Serve once this replica is constructed."""
        return create_app(self._services)
