"""The parts that the HTTP API works with."""

from dataclasses import dataclass
from typing import Protocol

from fastapi import Request

from serve_app.api.forecast import Forecaster
from serve_app.jobs.admission import Limits
from serve_app.jobs.store import JobStore
from serve_app.loras.resolver import LoraResolver
from serve_app.outputs import OutputStore
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


def services_of(request: Request) -> Services:
    """The parts of the application that answers this request; as a dependency they would cost 0.02 ms a request."""
    services: Services = request.app.state.services
    return services


def public_root(request: Request, services: Services) -> str:
    """What comes before a path for clients: the arg `base_url`, else the address they called."""
    return services.plan.settings.base_url or str(request.base_url).rstrip("/")
