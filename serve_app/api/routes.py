"""The endpoints."""

import asyncio
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import FileResponse, RedirectResponse

from serve_app.api import views
from serve_app.api.forecast import forecast
from serve_app.api.headers import SENDER_HEADERS, sender_headers
from serve_app.api.inspection import Inspection, InspectionRequest, inspect
from serve_app.api.request_schema import InferenceRequest
from serve_app.api.response_schema import (
    Accepted,
    Deleted,
    ErrorResponse,
    Health,
    Model,
    Models,
    RequestResult,
    RequestStatus,
)
from serve_app.api.services import Services, services_of
from serve_app.api.submission import Sender, accept
from serve_app.errors import OutputNotFound
from serve_app.jobs.reading import not_found
from serve_app.jobs.standing import Standing
from serve_app.jobs.states import FINAL, RenderState
from serve_app.jobs.store import check_ended
from serve_app.models.card import ImageInput
from serve_app.spec import Recipe

_LINK_LIFETIME_S = 3600  # of a presigned address; clients fetch the output right after they ask for it

RequestId = Annotated[str, Path(description="Id from the answer to the POST.")]
Index = Annotated[int, Path(description="Index of the prompt in the request, from 0.")]

_not_found: dict[int | str, dict[str, Any]] = {404: {"model": ErrorResponse, "description": "No such request."}}
_refusals: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorResponse, "description": "The model or a LoRA file stands against the request."},
    409: {"model": ErrorResponse, "description": "The Idempotency-Key was used with another body."},
    429: {"model": ErrorResponse, "description": "The queue takes no more just now; Retry-After says when it will."},
    503: {
        "model": ErrorResponse,
        "description": "The job store or a LoRA's server does not answer; nothing was accepted.",
    },
}

router = APIRouter()


def _status(standing: Standing, services: Services) -> RequestStatus:
    return views.status(standing.record, forecast(standing, services.plan.settings.tenant_weights))


def _known_form(request_id: str) -> str:
    """The id in the form in which ids are given out; anything else names no request."""
    try:
        return str(UUID(request_id))
    except ValueError:
        raise not_found(request_id) from None


@router.post(
    "/v1/inference",
    response_model=Accepted,
    responses=_refusals,
    openapi_extra=SENDER_HEADERS,
    tags=["inference"],
)
async def submit(body: InferenceRequest, request: Request, response: Response) -> Accepted:
    """Queue one video per prompt. Once answered, the request outlives a restart of any part of the service."""
    services = services_of(request)
    headers = sender_headers(request.headers, services.plan.settings)
    sender = Sender(headers.tenant, headers.idempotency(body))
    # Before anything is resolved: a LoRA that has gone since the first try must not turn the second into a refusal.
    durable = sender.idempotency and await services.store.known(sender.tenant, sender.idempotency)
    if not durable:
        durable = await services.store.submit(await accept(body, sender, services), services.limits)
    if not durable.replayed:
        services.announcer.queued()
        return views.accepted(durable, RenderState.QUEUED, request, services)
    response.headers["Idempotency-Replayed"] = "true"
    record = await services.store.request(durable.request_id)
    return views.accepted(durable, record.state, request, services)


@router.get("/v1/requests/{request_id}/status", response_model=RequestStatus, responses=_not_found, tags=["requests"])
async def status(request_id: RequestId, request: Request) -> RequestStatus:
    """Where the request is, and how far."""
    services = services_of(request)
    return _status(await services.store.standing(_known_form(request_id)), services)


@router.get("/v1/requests/{request_id}/result", response_model=RequestResult, responses=_not_found, tags=["requests"])
async def result(request_id: RequestId, request: Request) -> RequestResult:
    """The finished videos; before the end, those that are finished so far."""
    services = services_of(request)
    record = await services.store.request(_known_form(request_id))
    return views.result(record, request, services)


@router.post("/v1/requests/{request_id}/cancel", response_model=RequestStatus, responses=_not_found, tags=["requests"])
async def cancel(request_id: RequestId, request: Request) -> RequestStatus:
    """End the request: queued renders now, running ones at the next step or before storing. Idempotent."""
    services = services_of(request)
    record = await services.store.cancel(_known_form(request_id))
    if record.state not in FINAL:
        services.announcer.canceled(record.id)
    return _status(Standing(record), services)  # nothing of it waits any more


@router.delete(
    "/v1/requests/{request_id}",
    response_model=Deleted,
    responses=_not_found
    | {409: {"model": ErrorResponse, "description": "The request has not ended; cancel it first."}},
    tags=["requests"],
)
async def delete(request_id: RequestId, request: Request) -> Deleted:
    """Remove a request that has ended: its renders and its files. Its idempotency key is free again."""
    services = services_of(request)
    record = await services.store.request(_known_form(request_id))
    check_ended(record)
    # Files first: if that fails, the request is still there to be deleted again.
    await services.outputs.delete(record.output_names)
    await services.store.remove(record.id)
    return Deleted(request_id=record.id)


@router.get(
    "/v1/requests/{request_id}/outputs/{index}",
    response_class=FileResponse,
    responses={
        200: {
            "content": {"video/mp4": {}, "image/webp": {}, "application/zip": {}},
            "description": "The file.",
        },
        206: {"description": "The range that was asked for."},
        307: {"description": "Where the file lies, when outputs are kept in an object store."},
        404: {"model": ErrorResponse, "description": "No such request, or no finished output at that index."},
        416: {"description": "The range lies beyond the end of the file."},
    },
    tags=["requests"],
)
@router.head("/v1/requests/{request_id}/outputs/{index}", include_in_schema=False)
async def output(request_id: RequestId, index: Index, request: Request) -> Response:
    """The video of one prompt, with range requests."""
    services = services_of(request)
    record = await services.store.request(_known_form(request_id))
    finished = {render.index: render.output for render in record.renders if render.state is RenderState.SUCCEEDED}
    found = finished.get(index)
    if found is None:
        raise OutputNotFound(
            f"request {request_id} has no finished output {index}; it has: {sorted(finished)}",
            {"request_id": request_id, "index": index, "finished": sorted(finished)},
        )
    path = services.outputs.local_path(found.name)
    if path is None:
        return RedirectResponse(await services.outputs.signed_url(found.name, _LINK_LIFETIME_S))
    try:
        stat = await asyncio.to_thread(path.stat)
    except FileNotFoundError:
        raise OutputNotFound(
            f"output {index} of request {request_id} was removed from the server; render it again",
            {"request_id": request_id, "index": index},
        ) from None
    return FileResponse(
        path,
        stat_result=stat,
        media_type=found.format.media_type,
        filename=f"{record.id}_{index}.{found.format.extension}",
        content_disposition_type="inline",
    )


@router.post("/v1/loras/inspect", response_model=Inspection, tags=["loras"])
async def inspect_loras(body: InspectionRequest, request: Request) -> Inspection:
    """What LoRA files hold, which expert they look like, the recipe that shows them as their previews did, warnings."""
    return await inspect(body, services_of(request))


@router.get("/v1/models", response_model=Models, tags=["service"])
async def models(request: Request) -> Models:
    """The model that this service runs, with its defaults."""
    plan = services_of(request).plan
    card, defaults = plan.card, plan.card.defaults
    return Models(
        models=[
            Model(
                id=card.id,
                base_model=plan.base_model,
                transformer_model=plan.transformer_model,
                resolution_divisor=card.size_divisors[Recipe.REFERENCE],
                default_steps=defaults.sample_steps,
                default_guidance_scale=defaults.guidance_scale,
                default_seed=defaults.seed,
                default_width=defaults.width,
                default_height=defaults.height,
                requires_control_image=card.image_input is ImageInput.REQUIRED,
                is_video_model=True,
                default_num_frames=defaults.num_frames,
                default_fps=defaults.fps,
                demo=plan.demo,
                notice=plan.notice,
            )
        ]
    )


@router.get("/health", response_model=Health, tags=["service"])
async def health(request: Request) -> Health:
    """The API is up; renders are accepted."""
    plan = services_of(request).plan
    return Health(model=plan.card.id, profile=plan.profile.value, demo=plan.demo, notice=plan.notice)
