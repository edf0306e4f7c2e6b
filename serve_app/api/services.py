"""The parts that the HTTP API works with."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from serve_app.jobs.store import JobStore
from serve_app.loras.resolver import LoraResolver
from serve_app.outputs.store import OutputStore
from serve_app.plan import ServicePlan


@dataclass(frozen=True, kw_only=True)
class Services:
    """One instance per process, made by the ingress."""

    plan: ServicePlan
    store: JobStore
    loras: LoraResolver
    outputs: OutputStore
    announce: Callable[[], None]  # tells the dispatcher, without waiting, that renders are queued


async def _services(request: Request) -> Services:  # async: FastAPI sends a plain function to a thread
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(_services)]


def public_url(request: Request, services: Services, path: str) -> str:
    """Absolute address of `path` for clients: under the arg `base_url`, else under the address they called."""
    base = services.plan.settings.base_url or str(request.base_url).rstrip("/")
    return f"{base}{path}"
