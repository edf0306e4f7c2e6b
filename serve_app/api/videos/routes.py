"""Routes of OpenAI's Videos API: create, retrieve, list, delete and content, as its `openai` package calls them.

client = OpenAI(base_url="http://localhost:8000/v1", api_key="none")
video = client.videos.create_and_poll(model="my-style", prompt="a fox", seconds="4", size="832x480")
client.videos.download_content(video.id).write_to_file("fox.mp4")
"""

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse

from serve_app.api import inference, outputs, requests
from serve_app.api.dependencies import FetcherDep, IdempotencyKeyDep, SenderDep, ServicesDep
from serve_app.api.forecast import forecast
from serve_app.api.links import PublicRootDep
from serve_app.api.requests import RequestId, known_form
from serve_app.api.schemas.videos import VideoDeleted, VideoObject, VideoRequest
from serve_app.api.videos.route import VideosRoute, refusals
from serve_app.api.videos.translation import inference_request, video_of

_POLL_AFTER = "openai-poll-after-ms"
_SHORTEST_POLL_MS, _LONGEST_POLL_MS = 500, 5_000
_POLLS = 20  # until the predicted end: the client reads the header once, at its first look

router = APIRouter(tags=["openai"], route_class=VideosRoute, responses=refusals(400, 503))


@router.post("/v1/videos", responses=refusals(408, 409, 413, 415, 429))
async def create(
    body: VideoRequest,
    request: Request,
    response: Response,
    *,
    services: ServicesDep,
    sender: SenderDep,
    fetcher: FetcherDep,
    idempotency_key: IdempotencyKeyDep,
    root: PublicRootDep,
) -> VideoObject:
    """Queue a video; JSON, or a multipart form. Durable once it is answered, as with `POST /v1/inference`."""
    accepted = await inference.submit(
        inference_request(body, services),
        request,
        response,
        services=services,
        sender=sender,
        fetcher=fetcher,
        idempotency_key=idempotency_key,
        root=root,
    )
    return video_of(await services.store.requests.get(accepted.request_id, owner=sender.owner))


@router.get("/v1/videos/{request_id}", responses=refusals(404))
async def retrieve(request_id: RequestId, response: Response, services: ServicesDep, sender: SenderDep) -> VideoObject:
    """Return where the video is. The header `openai-poll-after-ms` says when to ask again."""
    standing = await services.store.requests.standing(known_form(request_id), owner=sender.owner)
    predicted = forecast(standing, services.plan.settings.tenant_weights)
    poll_ms = (predicted.eta_s or 0) * 1000 / _POLLS
    response.headers[_POLL_AFTER] = f"{min(max(poll_ms, _SHORTEST_POLL_MS), _LONGEST_POLL_MS):.0f}"
    return video_of(standing.record)


@router.delete("/v1/videos/{request_id}", responses=refusals(404, 409))
async def delete(request_id: RequestId, services: ServicesDep, sender: SenderDep) -> VideoDeleted:
    """Remove a video that has ended, with its files. `POST /v1/requests/{id}/cancel` ends one before."""
    deleted = await requests.delete(request_id, services, sender)
    return VideoDeleted(id=deleted.request_id)


@router.get(
    "/v1/videos/{request_id}/content",
    response_class=FileResponse,
    responses={
        200: {"content": {"video/mp4": {}, "image/webp": {}, "application/zip": {}}, "description": "The file."},
        206: {"description": "The range that was asked for."},
        304: {"description": "The file is the one whose ETag If-None-Match names."},
        307: {"description": "Where the file lies, when outputs are kept in an object store."},
        **refusals(404, 410, 416),
    },
)
async def content(request_id: RequestId, request: Request, services: ServicesDep, sender: SenderDep) -> Response:
    """Return the file of a video that is completed."""
    return await outputs.output(request_id, 0, request, services, sender)
