"""Accepted requests: their status, their result, cancel and delete. Downloads: `api.outputs`.

An id that another tenant owns is answered exactly as one that was never given out; see `jobs.ownership`.
"""

import logging
import re
from typing import Annotated

from fastapi import APIRouter, Path

from serve_app.api.dependencies import SenderDep, Services, ServicesDep
from serve_app.api.forecast import Forecast, forecast
from serve_app.api.links import PublicRootDep
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
from serve_app.errors import OutputStorageUnavailable
from serve_app.jobs.queue import Standing
from serve_app.jobs.records import Output, RequestRecord
from serve_app.jobs.requests import check_ended
from serve_app.jobs.rows import not_found
from serve_app.jobs.states import FINAL

logger = logging.getLogger("ray.serve")

router = APIRouter(tags=["requests"], responses=UNAVAILABLE | WRONG_HEADER)

_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)
RequestId = Annotated[str, Path(description="Id from the answer to the POST.")]


@router.get("/v1/requests/{request_id}/status", responses=NO_SUCH_REQUEST)
async def status(request_id: RequestId, services: ServicesDep, sender: SenderDep) -> RequestStatus:
    """Return where the request is, and how far."""
    return _status(await services.store.requests.standing(known_form(request_id), owner=sender.owner), services)


@router.get("/v1/requests/{request_id}/result", responses=NO_SUCH_REQUEST)
async def result(request_id: RequestId, services: ServicesDep, sender: SenderDep, root: PublicRootDep) -> RequestResult:
    """Return the finished videos; before the end, those that are finished so far."""
    return _result(await services.store.requests.get(known_form(request_id), owner=sender.owner), root, services)


@router.post("/v1/requests/{request_id}/cancel", responses=NO_SUCH_REQUEST)
async def cancel(request_id: RequestId, services: ServicesDep, sender: SenderDep) -> RequestStatus:
    """End the request: queued renders now, running ones at the next step or before storing. Idempotent."""
    record = await services.store.requests.cancel(known_form(request_id), owner=sender.owner)
    served = services.models.get(record.model)  # None where it is no longer served, and has no Generator at work
    if served is not None and record.state not in FINAL:
        served.announcer.canceled(record.id)
    return _status(Standing(record), services)  # without a place: nothing of it waits any more


@router.delete(
    "/v1/requests/{request_id}",
    responses={
        **NO_SUCH_REQUEST,
        **refusal(409, "The request has not ended; cancel it first."),
        **refusal(503, "A file cannot be removed now, or the job store does not answer; the request is still there."),
    },
)
async def delete(request_id: RequestId, services: ServicesDep, sender: SenderDep) -> Deleted:
    """Remove a request that has ended: its renders and its files. Its idempotency key is free again."""
    record = await services.store.requests.get(known_form(request_id), owner=sender.owner)
    check_ended(record)
    # Files first: if that fails, the request is still there and can be deleted again.
    try:
        await services.outputs.delete([*record.output_names, *record.input_names])
    except OSError as error:
        logger.warning("request %s is not deleted: a file cannot be removed: %s", record.id, error)
        raise OutputStorageUnavailable.of("removed", error) from error
    await services.store.requests.remove(record.id, owner=sender.owner)
    return Deleted(request_id=record.id)


def known_form(request_id: str) -> str:
    """Return the id in the form in which ids are given out; in any other but in capitals, it names no request."""
    if not _ID.fullmatch(request_id):
        raise not_found(request_id)
    return request_id.lower()


def _status(standing: Standing, services: Services) -> RequestStatus:
    record, failure = standing.record, standing.record.failure
    predicted = forecast(standing, services.plan.settings.tenant_weights)
    return RequestStatus(
        request_id=record.id,
        model=record.model,
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
        model=record.model,
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
        size=made.size,
        sha256=made.sha256,
    )
