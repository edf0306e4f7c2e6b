"""FastAPI dependencies: the services of the application, and the headers X-Tenant and Idempotency-Key.

Example:
    @router.get("/v1/requests/{request_id}/status")
    async def status(request_id: RequestId, services: ServicesDep, sender: SenderDep) -> RequestStatus:
        standing = await services.store.requests.standing(request_id, owner=sender.owner)

All of them are coroutines, because FastAPI runs plain functions in a thread, which takes longer than any of these.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Request
from opentelemetry.trace import TracerProvider

from serve_app.api.access_log import entry_of
from serve_app.api.guard import sender_in
from serve_app.api.kernels import FoundKernels
from serve_app.api.model_health import ModelsHealth
from serve_app.api.readiness import Readiness
from serve_app.api.served import ServedModel
from serve_app.errors import HeaderInvalid, ModelNotFound
from serve_app.images.resolver import ImageResolver
from serve_app.jobs.ownership import TENANT_HEADER, Sender, sender_of
from serve_app.jobs.store import JobStore
from serve_app.models.card import ImageInput
from serve_app.net import Bulkhead
from serve_app.observers import Observers
from serve_app.outputs import OutputStore
from serve_app.plan import ServicePlan

_KEY = re.compile(r"[\x21-\x7e]{1,255}")


@dataclass(frozen=True, kw_only=True)
class Services:
    """The parts that the HTTP API works with: one instance per process, made by the Ingress."""

    plan: ServicePlan
    models: Mapping[str, ServedModel]  # by the ids of their cards, in the order of the args
    store: JobStore
    images: ImageResolver
    fetches: Bulkhead  # threads that wait for remote servers
    outputs: OutputStore
    observers: Observers
    tracer_provider: TracerProvider | None = None  # where POSTs are traced
    node_metrics: Callable[[], Awaitable[bytes]]  # raises MetricsUnavailable

    @property
    def max_body_bytes(self) -> int:
        """Return the size of the largest body that is read: `max_body_bytes` for text, plus one image in base64."""
        takes_images = any(served.card.image_input is not ImageInput.NONE for served in self.models.values())
        return self.plan.settings.max_body_bytes + (self.images.most_characters if takes_images else 0)

    def served(self, model: str) -> ServedModel:
        """Return the model of that id.

        Raises:
            ModelNotFound: this service runs no such model; the message names those it runs.
        """
        found = self.models.get(model)
        if found is None:
            runs = ", ".join(f"'{name}'" for name in self.models)
            raise ModelNotFound(
                f"Model '{model}' is not supported; this service runs {runs}", {"supported_models": list(self.models)}
            )
        return found


def services_in(request: Request) -> Services:
    """Return the parts that serve this request.

    Dependencies call this rather than declare `ServicesDep`: FastAPI solves each dependency of each dependency again,
    which takes 60 us, only to find that its value is known.
    """
    services: Services = request.app.state.services
    return services


async def _services(request: Request) -> Services:
    return services_in(request)


ServicesDep = Annotated[Services, Depends(_services)]


async def _readiness(request: Request) -> Readiness:
    readiness: Readiness = request.app.state.readiness
    return readiness


ReadinessDep = Annotated[Readiness, Depends(_readiness)]


async def _models_health(request: Request) -> ModelsHealth:
    health: ModelsHealth = request.app.state.models_health
    return health


ModelsHealthDep = Annotated[ModelsHealth, Depends(_models_health)]


async def _kernels(request: Request) -> FoundKernels:
    kernels: FoundKernels = request.app.state.kernels
    return kernels


KernelsDep = Annotated[FoundKernels, Depends(_kernels)]


async def _sender(
    request: Request,
    x_tenant: Annotated[
        str | None,
        Header(
            alias=TENANT_HEADER,
            description=(
                "Whose request it is, and whose share of the GPUs it uses; counts where the arg "
                "`trust_tenant_header` is on, or the API key is an admin's. One tenant's requests are unknown to "
                "the others."
            ),
        ),
    ] = None,
) -> Sender:
    """Return the sender of the request: the owner of its API key or, if keys are off, the tenant of the header.

    Raises:
        HeaderInvalid: the header is trusted, and is no valid name of a tenant.
    """
    if known := sender_in(request.scope):
        return known
    sender = sender_of(x_tenant, trusted=services_in(request).plan.settings.trust_tenant_header)
    entry_of(request.scope).tenant = sender.tenant
    return sender


SenderDep = Annotated[Sender, Depends(_sender)]


def fetcher_of(request: Request, sender: Sender) -> str:
    """Return whose share of the fetching threads the request uses: its tenant and, if all are one, its address."""
    address = request.client.host if request.client else ""
    return sender.tenant if sender.owner else f"{sender.tenant} {address}"


async def _idempotency_key(
    key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            json_schema_extra={"minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
            description="Requests with the same key and body are one, however often sent; another body is a 409.",
        ),
    ] = None,
) -> str | None:
    """Return the idempotency key of the request, by which a repeated POST is recognised; None without the header.

    Raises:
        HeaderInvalid: the header has an invalid value.
    """
    if key is not None and not _KEY.fullmatch(key):
        raise HeaderInvalid(
            "Idempotency-Key must be 1 to 255 printable ASCII characters without spaces",
            {"header": "Idempotency-Key"},
        )
    return key


IdempotencyKeyDep = Annotated[str | None, Depends(_idempotency_key)]
