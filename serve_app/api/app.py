"""The FastAPI application: its routers and middleware.

The Ingress serves it, and tests call it in their own process:

    app = create_app(Services(plan=plan, store=store, ...))  # an ASGI application, for Serve or for a test client
"""

from importlib.metadata import version

from fastapi import FastAPI

from serve_app.api import (
    inference,
    lora_files,
    lora_uploads,
    loras,
    operations,
    outputs,
    page,
    requests,
    service,
    usage,
    webhooks,
)
from serve_app.api.access_log import AccessLog
from serve_app.api.answers import status_answer
from serve_app.api.authentication import Authentication
from serve_app.api.browsers import add_headers_for_browsers
from serve_app.api.dependencies import Services
from serve_app.api.error_handlers import add_refusals
from serve_app.api.events import routes as events
from serve_app.api.events.hub import EventHub
from serve_app.api.events.listeners import Listeners
from serve_app.api.guard import Guard
from serve_app.api.kernels import FoundKernels
from serve_app.api.large_bodies import LargeBodies
from serve_app.api.links import RootedRedirects
from serve_app.api.methods import answer_all_methods
from serve_app.api.model_health import ModelsHealth
from serve_app.api.openapi import DocumentedApi
from serve_app.api.rate_headers import RateHeaders
from serve_app.api.readiness import Readiness
from serve_app.api.swagger import add_docs
from serve_app.api.tracing import TracedPosts
from serve_app.api.variants import Variants
from serve_app.api.videos import routes as videos

_DESCRIPTION = """\
Videos from **LoRAs trained with AI Toolkit for %s**.

1. `POST /v1/inference` with the LoRAs and one or more prompts; it answers at once with a `request_id`.
2. `GET /v1/requests/{request_id}/status` until `status` is `succeeded`, `failed` or `canceled`.
3. `GET /v1/requests/{request_id}/result`, and the video at each output's `url`.
"""


def create_app(services: Services) -> FastAPI:
    """Return the HTTP API over these parts."""
    cards = [served.card for served in services.models.values()]
    titles = " and ".join(card.title for card in cards)
    app = DocumentedApi(
        cards,
        title=f"LoRA videos: {titles}",
        version=version("wan-lora-serve"),
        description=_DESCRIPTION % titles,
        docs_url=None,  # FastAPI's own page loads its scripts from a CDN; see `swagger`
        redoc_url=None,
    )
    attach(app, services)
    rooms = [
        inference,
        requests,
        events,
        outputs,
        loras,
        lora_files,
        lora_uploads,
        service,
        operations,
        usage,
        videos,
        webhooks,
        page,
    ]
    routers = [room.router for room in rooms]
    for router in routers:
        app.include_router(router)
    add_docs(app)
    routes = [route for router in routers for route in router.routes]
    app.api_routes = routes
    app.add_middleware(
        Guard,
        routes=routes,
        authentication=lambda: app.state.authentication,
        rates=lambda: app.state.rates,
        settings=lambda: app.state.services.plan.settings,  # `user_config` may change them
    )
    answer_all_methods(app, routes)
    app.add_middleware(RootedRedirects)
    add_headers_for_browsers(app, services.plan.settings.cors_origins)
    app.add_middleware(AccessLog)
    if services.tracer_provider is not None:
        app.add_middleware(TracedPosts, provider=services.tracer_provider)
    add_refusals(app)
    return app


def attach(app: FastAPI, services: Services) -> None:
    """Make `app` use these services from now on; its state is the only place where they are kept."""
    app.state.services = services
    app.state.authentication = Authentication(services.store, services.plan.settings)
    app.state.rates = RateHeaders()
    app.state.large_bodies = LargeBodies()
    app.state.readiness = Readiness(services.store, services.outputs)
    app.state.models_health = ModelsHealth(services.store, list(services.models))
    app.state.kernels = FoundKernels({name: served.announcer for name, served in services.models.items()})
    app.state.lora_catalog = lora_files.catalog_of(services)
    app.state.lora_uploads = lora_uploads.Uploads()
    app.state.variants = Variants(services.store, services.outputs)
    app.state.listeners = Listeners()
    # Reads the services at each call, because `user_config` may have changed them.
    app.state.event_hub = EventHub(services.store, lambda standing: status_answer(standing, app.state.services))
