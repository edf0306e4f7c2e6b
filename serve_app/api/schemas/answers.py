"""Schemas of answers about a request: the reference server's fields, and some that it lacks."""

from datetime import UTC, datetime
from typing import Any, Literal, overload

from pydantic import BaseModel, Field

from serve_app.jobs.states import RenderState
from serve_app.results import RenderMetadata
from serve_app.spec import OutputFormat

Status = Literal["in_queue", "in_progress", "succeeded", "failed", "canceled"]

API_STATUS: dict[RenderState, Status] = {
    RenderState.QUEUED: "in_queue",
    RenderState.PROCESSING: "in_progress",
    RenderState.SUCCEEDED: "succeeded",
    RenderState.FAILED: "failed",
    RenderState.CANCELED: "canceled",
}

_ID = "b3e6e2e0-5d0c-4c3e-9d38-0d3f7f6a4b11"
_TIME = "2026-01-17T00:00:00.000Z"
_EXPIRES = "When the request and its files are removed for their age, where the server removes them."


@overload
def timestamp(seconds: float) -> str: ...
@overload
def timestamp(seconds: None) -> None: ...
def timestamp(seconds: float | None) -> str | None:
    """Return seconds since the epoch as RFC 3339 in UTC, with milliseconds and one `Z`."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Accepted(BaseModel):
    """The request is durable: it outlives a restart of any part of the service."""

    request_id: str = Field(examples=[_ID])
    status: Status = Field(examples=["in_queue"])
    status_url: str = Field(examples=[f"http://localhost:8000/v1/requests/{_ID}/status"])
    result_url: str = Field(examples=[f"http://localhost:8000/v1/requests/{_ID}/result"])
    cancel_url: str = Field(examples=[f"http://localhost:8000/v1/requests/{_ID}/cancel"])
    created_at: str = Field(examples=[_TIME], description="RFC 3339, UTC.")


class RequestStatus(BaseModel):
    """How far a request is."""

    request_id: str = Field(examples=[_ID])
    model: str = Field(examples=["wan22_14b_t2v"], description="Id of the model.")
    status: Status = Field(examples=["in_progress"])
    progress: float = Field(ge=0, le=1, examples=[0.4], description="Denoising steps done of all.")
    queue_position: int | None = Field(
        None,
        examples=[0],
        description="Renders expected to start before this request's first queued one; null when none is queued.",
    )
    eta_seconds: float | None = Field(
        None,
        examples=[95.0],
        description="Predicted seconds until the request's last render ends; null once it has ended.",
    )
    created_at: str = Field(examples=[_TIME])
    started_at: str | None = Field(None, examples=[_TIME])
    finished_at: str | None = Field(None, examples=[_TIME])
    expires_at: str | None = Field(None, examples=[_TIME], description=_EXPIRES)
    error: str | None = Field(None, description="What went wrong and what to do; only when failed.")
    error_code: str | None = Field(None, examples=["OUT_OF_MEMORY"], description="Machine-readable; only when failed.")


class Video(BaseModel):
    """One finished video, with the values that were in effect."""

    format: OutputFormat = Field(description="As asked for.", examples=["mp4"])
    width: int = Field(examples=[832])
    height: int = Field(examples=[480])
    num_frames: int = Field(examples=[41])
    fps: int = Field(examples=[16])
    seed: int = Field(examples=[42])
    file_path: str = Field(description="Where the server keeps the file.", examples=["/srv/outputs/b3e6e2e0/0-1.mp4"])
    url: str = Field(
        description="Download address; supports range requests.",
        examples=[f"http://localhost:8000/v1/requests/{_ID}/outputs/0"],
    )
    index: int = Field(description="Index of the prompt in the request.", examples=[0])
    size: int | None = Field(None, description="Bytes of the file.", examples=[581234])
    sha256: str | None = Field(
        None, description="Of the file, hex; the file is served only while it is the same. Also its ETag."
    )


class Deleted(BaseModel):
    """The request, its renders and its files are gone."""

    request_id: str = Field(examples=[_ID])
    deleted: Literal[True] = Field(True, examples=[True])


class Outputs(BaseModel):
    """What a request gave."""

    images: list[Any] = Field(default_factory=list, description="Always empty: the model makes videos.")
    videos: list[Video] = Field(description="Finished videos, in the order of their prompts.")


class _Indexed(BaseModel):
    index: int = Field(description="Index of the prompt in the request.", examples=[0])


class PromptMetadata(RenderMetadata, _Indexed):
    """How the video of one prompt was made."""


class ResultMetadata(BaseModel):
    """How the videos were made."""

    prompts: list[PromptMetadata] = Field(description="One for each finished video, in the order of their prompts.")


class RequestResult(BaseModel):
    """The outputs so far; complete once `status` is succeeded, failed or canceled."""

    request_id: str = Field(examples=[_ID])
    model: str = Field(examples=["wan22_14b_t2v"], description="Id of the model.")
    status: Status = Field(examples=["succeeded"])
    outputs: Outputs | None = Field(description="Null until a video is finished or the request has ended.")
    error: str | None = Field(None, description="What went wrong and what to do; only when failed.")
    error_code: str | None = Field(None, examples=["OUT_OF_MEMORY"], description="Machine-readable; only when failed.")
    created_at: str = Field(examples=[_TIME])
    finished_at: str | None = Field(None, examples=[_TIME])
    expires_at: str | None = Field(None, examples=[_TIME], description=_EXPIRES)
    metadata: ResultMetadata | None = Field(
        None,
        description="What was used: per prompt the recipe, LoRA hashes and scales, attempt and timings (s).",
    )
