"""Schemas of OpenAI's Videos API, with the fields of `POST /v1/inference` beside OpenAI's own.

Names and types of OpenAI's fields are those of `openai.types.video` in its Python package.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, WithJsonSchema

from serve_app.api.schemas.bodies import Body, LoraItem, PromptItem, RequestOptions
from serve_app.models import limits

_SECONDS = r"^[0-9]{1,9}(\.[0-9]{1,9})?$"


def _as_text(value: Any) -> Any:
    """Return a number as the text that OpenAI's clients send."""
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else value


Seconds = Annotated[
    str,
    Field(pattern=_SECONDS),
    BeforeValidator(_as_text),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": _SECONDS}, {"type": "number", "minimum": 0}]}),
]


class ImageReference(Body):
    """The image that a video starts from."""

    image_url: str | None = Field(
        None, max_length=limits.IMAGE_LENGTH, description="`https://...`, or a data URL; also what `ctrl_img` takes."
    )
    file_id: str | None = Field(None, max_length=limits.NAME_LENGTH, description="Refused: there is no Files API here.")


class VideoRequest(RequestOptions, PromptItem):
    """Body of `POST /v1/videos`: OpenAI's fields, and those of `POST /v1/inference` and its prompts (`extra_body`)."""

    model: str | None = Field(
        None,
        max_length=limits.NAME_LENGTH,
        description=(
            "A name of the arg `aliases`, which stands for a model with its LoRAs and defaults; or a model's id. When "
            "omitted, the first alias; without aliases, the first model."
        ),
    )
    seconds: Seconds | None = Field(
        None,
        description=(
            "From the first frame to the last; gives `num_frames` by the frame rate, rounded as the model's frame "
            "rule has it."
        ),
        examples=["4"],
    )
    size: str | None = Field(
        None, pattern=r"^[0-9]{2,4}x[0-9]{2,4}$", description="Width x height, in pixels.", examples=["832x480"]
    )
    input_reference: ImageReference | None = Field(
        None, description="For a model that takes an image; as a file of a form, or an object with `image_url`."
    )
    loras: list[LoraItem] | None = Field(
        None, max_length=limits.LORAS, description="The LoRA files; the alias's when omitted."
    )


class VideoError(BaseModel):
    """Why a video failed."""

    code: str = Field(description="`cancelled`, or an `error_code` of this service.", examples=["cancelled"])
    message: str = Field(description="What went wrong and what to do.")


class VideoObject(BaseModel):
    """A video, finished or not. Of a request with several prompts, the first one's."""

    id: str = Field(description="The request's id, also in every other path of this API.")
    object: Literal["video"] = Field("video", examples=["video"])
    model: str = Field(description="Id of the model.")
    status: Literal["queued", "in_progress", "completed", "failed"] = Field(
        description="A canceled one has failed, with the error code `cancelled`."
    )
    progress: int = Field(ge=0, le=100, description="Percent of the denoising steps.")
    created_at: int = Field(description="Seconds since the epoch.")
    completed_at: int | None = Field(None, description="Seconds since the epoch.")
    expires_at: None = Field(None, description="Always null.")
    prompt: str = Field(description="With the trigger word in its place.")
    size: str = Field(description="In effect.", examples=["832x480"])
    seconds: str = Field(description="In effect, from the first frame to the last.", examples=["4"])
    error: VideoError | None = Field(None, description="Only when failed.")
    remixed_from_video_id: None = Field(None, description="Always null.")


class VideoList(BaseModel):
    """A page of videos."""

    object: Literal["list"] = Field("list", examples=["list"])
    data: list[VideoObject] = Field(description="As asked for.")
    first_id: str | None = Field(description="Of the page.")
    last_id: str | None = Field(description="For `after` of the next page.")
    has_more: bool = Field(description="Whether there is a next page.")


class VideoDeleted(BaseModel):
    """The video, its request and its files are gone."""

    id: str = Field(description="The request's id.")
    deleted: Literal[True] = Field(True, examples=[True])
    object: Literal["video.deleted"] = Field("video.deleted", examples=["video.deleted"])


class OpenAIErrorBody(BaseModel):
    """What stands against the call."""

    message: str = Field(description="What is wrong and what to do.")
    type: str = Field(examples=["invalid_request_error"])
    param: str | None = Field(description="The field that is wrong.")
    code: str | None = Field(description="An error code of this service.", examples=["LORA_NOT_FOUND"])


class OpenAIErrorResponse(BaseModel):
    """An error in OpenAI's shape."""

    error: OpenAIErrorBody = Field(description="Holds the error.")
