"""The Ingress actor: the HTTP API on any number of stateless replicas."""

import gc
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.announcer import DispatcherAnnouncer
from deployments.image_access import image_resolver
from deployments.lora_access import bulkhead, lora_resolvers
from deployments.observability.metrics import service_observers
from deployments.observability.scrape import NodeMetrics
from deployments.observability.tracing import tracer_provider
from serve_app.api.app import create_app
from serve_app.api.dependencies import Services
from serve_app.api.forecast import Forecaster
from serve_app.api.served import ServedModel
from serve_app.jobs.store import JobStore
from serve_app.logs import configure_logging
from serve_app.net import Bulkhead
from serve_app.outputs import OutputStore
from serve_app.plan import ServicePlan
from serve_app.tasks import detached
from serve_app.webhooks.worker import WebhookWorker

# New objects until the garbage collector runs; the same as in Serve's proxies. With Python's default of 700 it runs
# 1,100 times in the load benchmark, instead of 38 times.
_GC_THRESHOLD = 10_000
# The event loop releases the global interpreter lock (GIL) at each system call. It gets the lock back from a thread
# that parses a file after this time. With Python's default of 5 ms, a POST is ten times slower while a file is parsed.
_SWITCH_INTERVAL_S = 0.0005


@serve.ingress()
class Ingress:
    """Validates requests, makes them durable, and answers from the store. Stateless."""

    def __init__(self, plan: ServicePlan, *dispatchers: DeploymentHandle) -> None:
        """Take the plan, and the handles of the Dispatchers in the order of the plan's models."""
        configure_logging()
        self._built = plan  # by the args alone
        observers = service_observers(plan.settings)
        store = JobStore(plan.settings.database_url, observers.finished)
        fetches = bulkhead(plan.settings)
        self._services = Services(
            plan=plan,
            models=_models(plan, store, dispatchers, fetches),
            store=store,
            images=image_resolver(plan, fetches),
            fetches=fetches,
            outputs=OutputStore.from_url(plan.settings.output_url, make=False),
            observers=observers,
            node_metrics=NodeMetrics(),
            tracer_provider=tracer_provider(plan.settings),
        )
        self._app = create_app(self._services)
        self._telling = detached(WebhookWorker(store, plan.settings, observers).run())
        gc.set_threshold(_GC_THRESHOLD)
        gc.collect()
        gc.freeze()  # else each full collection looks again at the hundreds of thousands of objects that never go
        sys.setswitchinterval(_SWITCH_INTERVAL_S)

    def reconfigure(self, user_config: dict[str, Any] | None) -> None:
        """Apply the changes of `user_config`, from the next request on."""
        plan, models = self._built.retuned(user_config), self._services.models
        retuned = {model.card.id: replace(models[model.card.id], plan=model) for model in plan.models}
        self._services = replace(self._services, plan=plan, models=retuned)
        self._app.state.services = self._services

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Return the application; Serve calls this by name once this replica is constructed."""
        return self._app


def _models(
    plan: ServicePlan, store: JobStore, dispatchers: Sequence[DeploymentHandle], fetches: Bulkhead
) -> dict[str, ServedModel]:
    loras = lora_resolvers(plan, fetches)
    return {
        model.card.id: ServedModel(
            plan=model,
            loras=loras[model.card.id],
            announcer=DispatcherAnnouncer(dispatcher, of_renders=not store.notifies),
            forecaster=Forecaster(model, store),
        )
        for model, dispatcher in zip(plan.models, dispatchers, strict=True)
    }
