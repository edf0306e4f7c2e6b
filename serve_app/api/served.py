"""A served model, as the HTTP API uses it: its plan, LoRA resolver, forecaster, and calls to its Dispatcher."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from serve_app.api.forecast import Forecaster
from serve_app.jobs.admission import Limits
from serve_app.loras.resolver import LoraResolver
from serve_app.models.card import ModelCard
from serve_app.plan import ModelPlan
from serve_app.results import GeneratorRuntime


class Announcer(Protocol):
    """Sends wake-up calls to a Dispatcher, and asks it for its Generators. No method raises."""

    def queued(self) -> None:
        """Announce that renders were queued."""

    def canceled(self, request_id: str) -> None:
        """Announce that a request was canceled, so that its running renders stop."""

    async def fleet(self) -> Mapping[str, GeneratorRuntime] | None:
        """Return the Generators by the ids of their replicas; None if the Dispatcher does not answer soon."""


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """One model that requests may name: one instance per process, made by the Ingress."""

    plan: ModelPlan
    loras: LoraResolver
    announcer: Announcer
    forecaster: Forecaster

    @property
    def card(self) -> ModelCard:
        """Return its card."""
        return self.plan.card

    @property
    def limits(self) -> Limits:
        """Return the limits of its queue, as the args set them."""
        settings = self.plan.settings
        return Limits(
            max_queued=settings.max_queued,
            max_queued_per_tenant=settings.max_queued_per_tenant,
            max_wait_s=settings.max_wait_s,
            weights=settings.tenant_weights,
        )
