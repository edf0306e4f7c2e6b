"""Stored records in the API's words."""

from datetime import UTC, datetime
from typing import overload

from fastapi import Request

from serve_app.api.forecast import Forecast
from serve_app.api.response_schema import API_STATUS, Accepted, Outputs, RequestResult, RequestStatus, Video
from serve_app.api.services import Services, public_root
from serve_app.jobs.records import Accepted as DurableRequest
from serve_app.jobs.records import Output, RequestRecord
from serve_app.jobs.states import FINAL, RenderState


@overload
def timestamp(seconds: float) -> str: ...
@overload
def timestamp(seconds: None) -> None: ...
def timestamp(seconds: float | None) -> str | None:
    """Seconds since the epoch as RFC 3339 in UTC with milliseconds and one `Z`."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def accepted(durable: DurableRequest, state: RenderState, request: Request, services: Services) -> Accepted:
    """The answer to a POST."""
    root = f"{public_root(request, services)}/v1/requests/{durable.request_id}"
    return Accepted(
        request_id=durable.request_id,
        status=API_STATUS[state],
        status_url=f"{root}/status",
        result_url=f"{root}/result",
        cancel_url=f"{root}/cancel",
        created_at=timestamp(durable.created_at),
    )


def status(record: RequestRecord, forecast: Forecast) -> RequestStatus:
    """How far a request is."""
    failure = record.failure
    return RequestStatus(
        request_id=record.id,
        status=API_STATUS[record.state],
        progress=record.progress,
        queue_position=forecast.queue_position,
        eta_seconds=None if forecast.eta_s is None or record.state in FINAL else round(forecast.eta_s, 2),
        created_at=timestamp(record.created_at),
        started_at=timestamp(record.started_at),
        finished_at=timestamp(record.finished_at),
        error=failure.error_message if failure else None,
        error_code=failure.error_code if failure else None,
    )


def result(record: RequestRecord, request: Request, services: Services) -> RequestResult:
    """The outputs of a request; those of a failed or canceled one that were finished before stay."""
    failure = record.failure
    finished = [(render.index, render.output) for render in record.renders if render.output is not None]
    root = f"{public_root(request, services)}/v1/requests/{record.id}"
    videos = [_video(root, index, output, services) for index, output in finished]
    metadata = {"prompts": [{"index": index, **output.metadata} for index, output in finished]}
    return RequestResult(
        request_id=record.id,
        status=API_STATUS[record.state],
        outputs=Outputs(videos=videos) if finished or record.state in FINAL else None,
        error=failure.error_message if failure else None,
        error_code=failure.error_code if failure else None,
        created_at=timestamp(record.created_at),
        finished_at=timestamp(record.finished_at),
        metadata=metadata if finished else None,
    )


def _video(root: str, index: int, output: Output, services: Services) -> Video:
    return Video(
        **output.model_dump(exclude={"name", "metadata"}),
        file_path=services.outputs.location(output.name),
        url=f"{root}/outputs/{index}",
        index=index,
    )
