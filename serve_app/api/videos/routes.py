"""Routes of OpenAI's Videos API: create, retrieve, list, delete and content, as its `openai` package calls them.

Example:
    from openai import OpenAI

    client = OpenAI(base_url="http://localhost:8000/v1", api_key="none")
    video = client.videos.create_and_poll(model="my-style", prompt="a fox", seconds="4", size="832x480")
    client.videos.download_content(video.id).write_to_file("fox.mp4")
"""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse

from serve_app.api import outputs, requests
from serve_app.api.access_log import entry_of
from serve_app.api.dependencies import IdempotencyKeyDep, SenderDep, ServicesDep, fetcher_of
from serve_app.api.forecast import forecast
from serve_app.api.requests import RequestId, known_form
from serve_app.api.schemas.videos import VideoDeleted, VideoList, VideoObject, VideoRequest
from serve_app.api.submission import submitted
from serve_app.api.variants import VariantsDep
from serve_app.api.videos.route import VideosRoute, refusals
from serve_app.api.videos.translation import inference_request, video_of
from serve_app.jobs.listing import Cursor, Filter
from serve_app.models.limits import NAME_LENGTH
from serve_app.spec import Variant

_MOST = 100  # videos of a page
_POLL_AFTER = "openai-poll-after-ms"
_SHORTEST_POLL_MS, _LONGEST_POLL_MS = 500, 5_000
_POLLS = 20  # until the predicted end: the client reads the header once, at its first look

router = APIRouter(tags=["openai"], route_class=VideosRoute, responses=refusals(400, 401, 403, 503))


@router.post("/v1/videos", responses=refusals(408, 409, 413, 415, 429))
async def create(
    body: VideoRequest,
    request: Request,
    response: Response,
    *,
    services: ServicesDep,
    sender: SenderDep,
    idempotency_key: IdempotencyKeyDep,
) -> VideoObject:
    """Queue a video; JSON, or a multipart form. Durable once it is answered, as with `POST /v1/inference`."""
    durable = await submitted(
        inference_request(body, services),
        services,
        sender=sender,
        fetcher=fetcher_of(request, sender),
        idempotency_key=idempotency_key,
    )
    entry_of(request.scope).request_id = durable.request_id
    if durable.replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return video_of(await services.store.requests.get(durable.request_id, owner=sender.owner))


@router.get("/v1/videos/{request_id}", responses=refusals(404))
async def retrieve(request_id: RequestId, response: Response, services: ServicesDep, sender: SenderDep) -> VideoObject:
    """Return where the video is. The header `openai-poll-after-ms` says when to ask again."""
    standing = await services.store.requests.standing(known_form(request_id), owner=sender.owner)
    predicted = forecast(standing, services.plan.settings.tenant_weights)
    poll_ms = (predicted.eta_s or 0) * 1000 / _POLLS
    response.headers[_POLL_AFTER] = f"{min(max(poll_ms, _SHORTEST_POLL_MS), _LONGEST_POLL_MS):.0f}"
    return video_of(standing.record)


@router.get("/v1/videos", responses=refusals(404))
async def listed(
    services: ServicesDep,
    sender: SenderDep,
    *,
    after: Annotated[str | None, Query(max_length=NAME_LENGTH, description="`last_id` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=_MOST, description="Of a page.")] = 20,
    order: Annotated[Literal["asc", "desc"], Query(description="Oldest or newest first.")] = "desc",
) -> VideoList:
    """List videos."""
    cursor = None
    if after is not None:
        before = await services.store.requests.get(known_form(after), owner=sender.owner)
        cursor = Cursor(before.created_at, before.id)
    page = await services.store.requests.page(
        Filter(), limit=limit, after=cursor, owner=sender.owner, oldest_first=order == "asc"
    )
    videos = [video_of(standing.record) for standing in page.standings]
    return VideoList(
        data=videos,
        first_id=videos[0].id if videos else None,
        last_id=videos[-1].id if videos else None,
        has_more=page.next is not None,
    )


@router.delete("/v1/videos/{request_id}", responses=refusals(404, 409))
async def delete(request_id: RequestId, services: ServicesDep, sender: SenderDep) -> VideoDeleted:
    """Remove a video that has ended, with its files. `POST /v1/requests/{id}/cancel` ends one before."""
    deleted = await requests.delete(request_id, services, sender)
    return VideoDeleted(id=deleted.request_id)


@router.get(
    "/v1/videos/{request_id}/content",
    response_class=FileResponse,
    responses={
        **outputs.FILE_ANSWERS,
        **refusals(404, 410, 416),
    },
)
async def content(
    request_id: RequestId,
    request: Request,
    *,
    services: ServicesDep,
    sender: SenderDep,
    variants: VariantsDep,
    variant: outputs.VariantQuery = Variant.VIDEO,
) -> Response:
    """Return the file of a video that is completed, or a picture of it."""
    return await outputs.output(
        request_id, 0, request, services=services, sender=sender, variants=variants, variant=variant
    )
