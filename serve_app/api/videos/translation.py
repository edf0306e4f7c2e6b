"""Translation between OpenAI's Videos API and this service's: a VideoRequest into a body, a record into a VideoObject.

Example:
    body = inference_request(VideoRequest(prompt="a fox", model="my-style", seconds="4", size="832x480"), services)
    video = video_of(record)
"""

from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from serve_app.aliases import Alias
from serve_app.api.dependencies import Services
from serve_app.api.schemas.bodies import CONTROL_IMAGES, InferenceRequest, PromptItem, RequestOptions
from serve_app.api.schemas.videos import ImageReference, VideoError, VideoObject, VideoRequest
from serve_app.errors import ModelNotFound, VideoFieldRefused
from serve_app.jobs.records import RequestRecord
from serve_app.jobs.states import FINAL, RenderState
from serve_app.models.card import ModelCard
from serve_app.models.limits import NUM_FRAMES, SIZE

_OF_PROMPT = frozenset(PromptItem.model_fields)  # `trigger_word`, which both have, among them
_OF_REQUEST = frozenset(RequestOptions.model_fields) - _OF_PROMPT
_CANCELED = VideoError(code="cancelled", message="The video was canceled.")

_STATUS = {
    RenderState.QUEUED: "queued",
    RenderState.PROCESSING: "in_progress",
    RenderState.SUCCEEDED: "completed",
    RenderState.FAILED: "failed",
    RenderState.CANCELED: "failed",  # OpenAI's client stops polling only at "completed" and "failed"
}


def inference_request(video: VideoRequest, services: Services) -> InferenceRequest:
    """Return the body of `POST /v1/inference` that asks for the same.

    Raises:
        ModelNotFound: `model` is neither an alias nor a model.
        VideoFieldRefused: `seconds`, `size` or `input_reference` has an invalid value, or contradicts another field.
        RequestValidationError: a value does not fit the schema of the body.
    """
    name, alias = _meant(video, services)
    card = services.served(alias.model if alias else name).card
    own = {field: getattr(video, field) for field in video.model_fields_set if getattr(video, field) is not None}
    values = {**(alias.values() if alias else {}), **own}
    prompt = {field: value for field, value in values.items() if field in _OF_PROMPT}
    prompt |= _size(video) | _frames(video, prompt, card) | _image(video)
    options = {field: value for field, value in values.items() if field in _OF_REQUEST}
    try:
        return InferenceRequest.model_validate(
            {**options, "model": card.id, "loras": values.get("loras", []), "prompts": [prompt]}
        )
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from error


def _meant(video: VideoRequest, services: Services) -> tuple[str, Alias | None]:
    """Return the model that the request means, and the alias if `model` names one."""
    aliases = services.plan.settings.aliases
    name = video.model or next(iter([*aliases, *services.models]))
    if name not in aliases and name not in services.models:
        known = [*aliases, *services.models]
        raise ModelNotFound(
            f"Model '{name}' is not known; use one of {', '.join(known)}", {"field": "model", "supported_models": known}
        )
    return name, aliases.get(name)


def _size(video: VideoRequest) -> dict[str, int]:
    if video.size is None:
        return {}
    _refuse_beside(video, "size", "width", "height")
    width, height = map(int, video.size.split("x"))
    if not all(SIZE.least <= pixels <= SIZE.most for pixels in (width, height)):
        raise VideoFieldRefused(
            f"size must have {SIZE.least} to {SIZE.most} pixels on each side, as in '832x480'", {"field": "size"}
        )
    return {"width": width, "height": height}


def _frames(video: VideoRequest, prompt: dict[str, Any], card: ModelCard) -> dict[str, int]:
    if video.seconds is None:
        return {}
    _refuse_beside(video, "seconds", "num_frames")
    fps = prompt.get("fps", card.defaults.fps)
    frames = round(float(video.seconds) * fps)
    if not NUM_FRAMES.least <= frames <= NUM_FRAMES.most:
        raise VideoFieldRefused(
            f"seconds must give {NUM_FRAMES.least} to {NUM_FRAMES.most} frames; at {fps} frames per second that is "
            f"{NUM_FRAMES.least / fps:.2g} to {NUM_FRAMES.most / fps:g}",
            {"field": "seconds"},
        )
    # A frame rule of 4n + 1 makes 65 frames of 4 seconds: from the first to the last it is 4 seconds.
    return {"num_frames": frames}


def _image(video: VideoRequest) -> dict[str, str]:
    reference: ImageReference | None = video.input_reference
    if reference is None:
        return {}
    _refuse_beside(video, "input_reference", *CONTROL_IMAGES)
    if reference.file_id is not None or reference.image_url is None:
        raise VideoFieldRefused(
            "input_reference needs an image: a file of the form, or an object with image_url; there is no Files API",
            {"field": "input_reference"},
        )
    return {"ctrl_img": reference.image_url}


def _refuse_beside(video: VideoRequest, field: str, *others: str) -> None:
    if beside := [other for other in others if getattr(video, other) is not None]:
        raise VideoFieldRefused(f"{field} and {', '.join(beside)} say the same; send one of them", {"field": field})


def video_of(record: RequestRecord) -> VideoObject:
    """Return a request as OpenAI's VideoObject; of several prompts, the first one."""
    spec, state = record.renders[0].spec, record.state
    failure = record.failure
    error = (
        VideoError(code=failure.error_code or "RENDER_FAILED", message=failure.error_message or "")
        if failure
        else _CANCELED
        if state is RenderState.CANCELED
        else None
    )
    finished = record.finished_at if state in FINAL else None
    return VideoObject.model_validate(
        {
            "id": record.id,
            "model": record.model,
            "status": _STATUS[state],
            "progress": int(record.progress * 100),
            "created_at": int(record.created_at),
            "completed_at": None if finished is None else int(finished),
            "prompt": spec.prompt,
            "size": f"{spec.width}x{spec.height}",
            "seconds": f"{(spec.num_frames - 1) / spec.fps:.6g}",
            "error": error,
        }
    )
