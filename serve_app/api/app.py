"""The FastAPI application: its routers, and how errors become responses.

The Ingress serves it, and tests call it in their own process:

    app = create_app(Services(plan=plan, store=store, ...))  # an ASGI application, for Serve or for a test client
"""

from importlib.metadata import version

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from serve_app.api import inference, loras, requests, service
from serve_app.api.dependencies import Services
from serve_app.api.openapi import DocumentedApi
from serve_app.errors import AdmissionError, LoraSourceUnavailable, ServiceError, StoreUnavailable

_RETRY_AFTER_S = 5  # where the error does not say itself
_TEMPORARY = (StoreUnavailable, LoraSourceUnavailable)

_DESCRIPTION = """\
Videos from **LoRAs trained with AI Toolkit for %s**.

1. `POST /v1/inference` with the LoRAs and one or more prompts; it answers at once with a `request_id`.
2. `GET /v1/requests/{request_id}/status` until `status` is `succeeded`, `failed` or `canceled`.
3. `GET /v1/requests/{request_id}/result`, and the video at each output's `url`.
"""


def create_app(services: Services) -> FastAPI:
    """Return the HTTP API over these parts."""
    card = services.plan.card
    app = DocumentedApi(
        card,
        title=f"LoRA videos: {card.title}",
        version=version("wan-lora-serve"),
        description=_DESCRIPTION % card.title,
    )
    app.state.services = services
    for room in (inference, requests, loras, service):
        app.include_router(room.router)
    app.exception_handler(ServiceError)(_service_error)
    app.exception_handler(RequestValidationError)(_validation_error)
    return app


async def _service_error(_request: Request, error: ServiceError) -> JSONResponse:
    retry_after_s = _retry_after_s(error)
    headers = None if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    return JSONResponse({"detail": error.body()}, status_code=error.status, headers=headers)


def _retry_after_s(error: ServiceError) -> int | None:
    if isinstance(error, AdmissionError):
        return error.retry_after_s
    return _RETRY_AFTER_S if isinstance(error, _TEMPORARY) else None


async def _validation_error(_request: Request, error: RequestValidationError) -> JSONResponse:
    """Return FastAPI's own 422 body without the input, which may hold a token."""
    detail = [{"loc": item["loc"], "msg": item["msg"], "type": item["type"]} for item in error.errors()]
    return JSONResponse({"detail": detail}, status_code=422)
