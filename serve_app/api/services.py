"""The parts that the HTTP API works with."""

from dataclasses import dataclass
from typing import Annotated, Protocol

from fastapi import Depends, Request

from serve_app.api.forecast import Forecaster
from serve_app.jobs.admission import Limits
from serve_app.jobs.store import JobStore
from serve_app.loras.resolver import LoraResolver
from serve_app.outputs.store import OutputStore
from serve_app.plan import ServicePlan


class Announcer(Protocol):
    """Tells the Dispatcher what it would otherwise find at its next sweep. Neither method waits or fails."""

    def queued(self) -> None:
        """Renders were queued."""

    def canceled(self, request_id: str) -> None:
        """A request was canceled: what runs of it should stop."""


@dataclass(frozen=True, kw_only=True)
class Services:
    """One instance per process, made by the ingress."""

    plan: ServicePlan
    store: JobStore
    loras: LoraResolver
    outputs: OutputStore
    announcer: Announcer
    forecaster: Forecaster

    @property
    def limits(self) -> Limits:
        """Of the queue, as the args set them."""
        settings = self.plan.settings
        return Limits(
            max_queued=settings.max_queued,
            max_queued_per_tenant=settings.max_queued_per_tenant,
            max_wait_s=settings.max_wait_s,
            weights=settings.tenant_weights,
        )


async def _services(request: Request) -> Services:  # async: FastAPI sends a plain function to a thread
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(_services)]


def public_url(request: Request, services: Services, path: str) -> str:
    """Absolute address of `path` for clients: under the arg `base_url`, else under the address they called."""
    base = services.plan.settings.base_url or str(request.base_url).rstrip("/")
    return f"{base}{path}"
