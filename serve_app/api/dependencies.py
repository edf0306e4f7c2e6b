"""FastAPI dependencies: what endpoints take from the application and from the headers of a request.

    @router.get("/v1/requests/{request_id}/status")
    async def status(request_id: RequestId, services: ServicesDep, sender: SenderDep) -> RequestStatus:
        standing = await services.store.requests.standing(request_id, owner=sender.owner)

All of them are coroutines: FastAPI runs plain functions in a thread, which takes longer than any of these.
"""

import re
from dataclasses import dataclass
from typing import Annotated, Protocol

from fastapi import Depends, Header, Request

from serve_app.api.access_log import entry_of
from serve_app.api.forecast import Forecaster
from serve_app.errors import HeaderInvalid
from serve_app.images.resolver import ImageResolver
from serve_app.jobs.admission import Limits
from serve_app.jobs.ownership import TENANT_HEADER, Sender, sender_of
from serve_app.jobs.store import JobStore
from serve_app.loras.resolver import LoraResolver
from serve_app.models.card import ImageInput
from serve_app.observers import Observers
from serve_app.outputs import OutputStore
from serve_app.plan import ServicePlan

_KEY = re.compile(r"[\x21-\x7e]{1,255}")


class Announcer(Protocol):
    """Tells the Dispatcher what it would otherwise find at its next sweep. Neither method waits or fails."""

    def queued(self) -> None:
        """Renders were queued."""

    def canceled(self, request_id: str) -> None:
        """A request was canceled: what runs of it should stop."""


@dataclass(frozen=True, kw_only=True)
class Services:
    """The parts that the HTTP API works with: one instance per process, made by the Ingress."""

    plan: ServicePlan
    store: JobStore
    loras: LoraResolver
    images: ImageResolver
    outputs: OutputStore
    announcer: Announcer
    observers: Observers
    forecaster: Forecaster

    @property
    def max_body_bytes(self) -> int:
        """Return how much of a request's body is read: `max_body_bytes` for text, and one image within it."""
        image = 0 if self.plan.card.image_input is ImageInput.NONE else self.images.most_characters
        return self.plan.settings.max_body_bytes + image

    @property
    def limits(self) -> Limits:
        """Return the limits of the queue, as the args set them."""
        settings = self.plan.settings
        return Limits(
            max_queued=settings.max_queued,
            max_queued_per_tenant=settings.max_queued_per_tenant,
            max_wait_s=settings.max_wait_s,
            weights=settings.tenant_weights,
        )


async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(_services)]


async def _sender(
    request: Request,
    services: ServicesDep,
    x_tenant: Annotated[
        str | None,
        Header(
            alias=TENANT_HEADER,
            description=(
                "Whose request it is, and whose share of the GPUs it uses; counts where the arg "
                "`trust_tenant_header` is on. One tenant's requests are unknown to the others."
            ),
        ),
    ] = None,
) -> Sender:
    """Return who sends the request.

    Raises:
        HeaderInvalid: the header counts, and has a value that it cannot have.
    """
    sender = sender_of(x_tenant, trusted=services.plan.settings.trust_tenant_header)
    entry_of(request.scope).tenant = sender.tenant
    return sender


SenderDep = Annotated[Sender, Depends(_sender)]


async def _idempotency_key(
    key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            description="Requests with the same key and body are one, however often sent; another body is a 409.",
        ),
    ] = None,
) -> str | None:
    """Return the key under which a request is the same one when it is sent again.

    Raises:
        HeaderInvalid: it has a value that it cannot have.
    """
    if key is not None and not _KEY.fullmatch(key):
        raise HeaderInvalid(
            "Idempotency-Key must be 1 to 255 printable ASCII characters without spaces",
            {"header": "Idempotency-Key"},
        )
    return key


IdempotencyKeyDep = Annotated[str | None, Depends(_idempotency_key)]
