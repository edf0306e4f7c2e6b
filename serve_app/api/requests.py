"""Accepted requests: their status, their result, cancel and delete, and the files of their outputs.

An id that another tenant owns is answered exactly as one that was never given out; see `jobs.ownership`.
"""

import asyncio
import re
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Response
from fastapi.responses import FileResponse, RedirectResponse
from pydantic import BeforeValidator
from pydantic_core import PydanticKnownError

from serve_app.api.dependencies import SenderDep, Services, ServicesDep
from serve_app.api.forecast import Forecast, forecast
from serve_app.api.links import PublicRootDep
from serve_app.api.ranges import RangedFile
from serve_app.api.schemas.answers import (
    API_STATUS,
    Deleted,
    Outputs,
    PromptMetadata,
    RequestResult,
    RequestStatus,
    ResultMetadata,
    Video,
    timestamp,
)
from serve_app.api.schemas.errors import NO_SUCH_REQUEST, UNAVAILABLE, WRONG_HEADER, refusal
from serve_app.errors import OutputNotFound
from serve_app.jobs.queue import Standing
from serve_app.jobs.records import Output, RequestRecord
from serve_app.jobs.requests import check_ended
from serve_app.jobs.rows import not_found
from serve_app.jobs.states import FINAL, RenderState

_LINK_LIFETIME_S = 3600  # of a presigned URL; clients fetch the output right after they ask for it

router = APIRouter(tags=["requests"], responses=UNAVAILABLE | WRONG_HEADER)

RequestId = Annotated[str, Path(description="Id from the answer to the POST.")]
_INDEX = re.compile(r"-?[1-9][0-9]{0,3999}|0")  # no longer: Python reads no number of more than 4,300 digits


def _index(text: str) -> int:
    """Read an index in the one spelling that links have; `+0` is none."""
    if not _INDEX.fullmatch(text):
        raise PydanticKnownError("int_parsing")
    return int(text)


Index = Annotated[int, BeforeValidator(_index), Path(description="Index of the prompt in the request, from 0.")]


@router.get("/v1/requests/{request_id}/status", responses=NO_SUCH_REQUEST)
async def status(request_id: RequestId, services: ServicesDep, sender: SenderDep) -> RequestStatus:
    """Return where the request is, and how far."""
    return _status(await services.store.requests.standing(_known_form(request_id), owner=sender.owner), services)


@router.get("/v1/requests/{request_id}/result", responses=NO_SUCH_REQUEST)
async def result(request_id: RequestId, services: ServicesDep, sender: SenderDep, root: PublicRootDep) -> RequestResult:
    """Return the finished videos; before the end, those that are finished so far."""
    return _result(await services.store.requests.get(_known_form(request_id), owner=sender.owner), root, services)


@router.post("/v1/requests/{request_id}/cancel", responses=NO_SUCH_REQUEST)
async def cancel(request_id: RequestId, services: ServicesDep, sender: SenderDep) -> RequestStatus:
    """End the request: queued renders now, running ones at the next step or before storing. Idempotent."""
    record = await services.store.requests.cancel(_known_form(request_id), owner=sender.owner)
    if record.state not in FINAL:
        services.announcer.canceled(record.id)
    return _status(Standing(record), services)  # without a place: nothing of it waits any more


@router.delete(
    "/v1/requests/{request_id}",
    responses=NO_SUCH_REQUEST | refusal(409, "The request has not ended; cancel it first."),
)
async def delete(request_id: RequestId, services: ServicesDep, sender: SenderDep) -> Deleted:
    """Remove a request that has ended: its renders and its files. Its idempotency key is free again."""
    record = await services.store.requests.get(_known_form(request_id), owner=sender.owner)
    check_ended(record)
    # Files first: if that fails, the request is still there and can be deleted again.
    await services.outputs.delete([*record.output_names, *record.input_names])
    await services.store.requests.remove(record.id, owner=sender.owner)
    return Deleted(request_id=record.id)


@router.get(
    "/v1/requests/{request_id}/outputs/{index}",
    response_class=FileResponse,
    responses={
        200: {"content": {"video/mp4": {}, "image/webp": {}, "application/zip": {}}, "description": "The file."},
        206: {"description": "The range that was asked for."},
        307: {"description": "Where the file lies, when outputs are kept in an object store."},
        **refusal(416, "The range lies beyond the end of the file."),
        **refusal(404, "No such request, or no finished output at that index."),
    },
)
async def output(request_id: RequestId, index: Index, services: ServicesDep, sender: SenderDep) -> Response:
    """Return the video of one prompt; ranges are supported."""
    record = await services.store.requests.get(_known_form(request_id), owner=sender.owner)
    found = _finished_output(record, index)
    path = services.outputs.local_path(found.name)
    if path is None:
        return RedirectResponse(await services.outputs.signed_url(found.name, _LINK_LIFETIME_S))
    try:
        stat = await asyncio.to_thread(path.stat)
    except FileNotFoundError:
        raise OutputNotFound(
            f"output {index} of request {record.id} was removed from the server; render it again",
            {"request_id": record.id, "index": index},
        ) from None
    return RangedFile(
        path,
        stat_result=stat,
        media_type=found.format.media_type,
        filename=f"{record.id}_{index}.{found.format.extension}",
        content_disposition_type="inline",
    )


def _known_form(request_id: str) -> str:
    """Return the id in the form in which ids are given out; anything else names no request."""
    try:
        return str(UUID(request_id))
    except ValueError:
        raise not_found(request_id) from None


def _finished_output(record: RequestRecord, index: int) -> Output:
    finished = {render.index: render.output for render in record.renders if render.state is RenderState.SUCCEEDED}
    found = finished.get(index)
    if found is None:
        raise OutputNotFound(
            f"request {record.id} has no finished output {index}; it has: {sorted(finished)}",
            {"request_id": record.id, "index": index, "finished": sorted(finished)},
        )
    return found


def _status(standing: Standing, services: Services) -> RequestStatus:
    record, failure = standing.record, standing.record.failure
    predicted = forecast(standing, services.plan.settings.tenant_weights)
    return RequestStatus(
        request_id=record.id,
        status=API_STATUS[record.state],
        progress=record.progress,
        queue_position=predicted.queue_position,
        eta_seconds=_eta_seconds(record, predicted),
        created_at=timestamp(record.created_at),
        started_at=timestamp(record.started_at),
        finished_at=timestamp(record.finished_at),
        error=failure.error_message if failure else None,
        error_code=failure.error_code if failure else None,
    )


def _eta_seconds(record: RequestRecord, predicted: Forecast) -> float | None:
    return None if predicted.eta_s is None or record.state in FINAL else round(predicted.eta_s, 2)


def _result(record: RequestRecord, root: str, services: Services) -> RequestResult:
    """Return the outputs of a request; a failed or canceled one keeps those that were finished before."""
    failure = record.failure
    finished = [(render.index, render.output) for render in record.renders if render.output is not None]
    videos = [
        _video(f"{root}/v1/requests/{record.id}/outputs/{index}", index, made, services) for index, made in finished
    ]
    prompts = [PromptMetadata(index=index, **dict(made.metadata)) for index, made in finished]
    return RequestResult(
        request_id=record.id,
        status=API_STATUS[record.state],
        outputs=Outputs(videos=videos) if finished or record.state in FINAL else None,
        error=failure.error_message if failure else None,
        error_code=failure.error_code if failure else None,
        created_at=timestamp(record.created_at),
        finished_at=timestamp(record.finished_at),
        metadata=ResultMetadata(prompts=prompts) if finished else None,
    )


def _video(url: str, index: int, made: Output, services: Services) -> Video:
    return Video(
        format=made.format,
        width=made.width,
        height=made.height,
        num_frames=made.num_frames,
        fps=made.fps,
        seed=made.seed,
        file_path=services.outputs.location(made.name),
        url=url,
        index=index,
    )
