"""Schemas of lists of requests, of a request as it was understood, and of a forecast."""

from pydantic import BaseModel, Field

from serve_app.api.schemas.answers import RequestStatus
from serve_app.api.schemas.bodies import Side
from serve_app.spec import Fit, OutputFormat, Priority, Recipe, Sampler, Speed

_INDEX = Field(description="Index of the prompt in the request.", examples=[0])


class PromptSummary(BaseModel):
    """One video of a request, as it is or will be."""

    index: int = _INDEX
    prompt: str = Field(description="With its trigger word in place.", examples=["sks a photo of a person"])
    width: int = Field(description="Pixels.", examples=[832])
    height: int = Field(description="Pixels.", examples=[480])
    num_frames: int = Field(examples=[41], description="After rounding.")
    fps: int = Field(examples=[16], description="Frames per second.")
    seed: int = Field(examples=[42], description="The one in effect.")
    url: str | None = Field(description="Download address; null until the video is finished.")
    thumbnail_url: str | None = Field(description="A small picture of it; null until the video is finished.")


class LoraSummary(BaseModel):
    """One LoRA of a request."""

    path: str = Field(description="As it was sent, without secrets.", examples=["my_job/my_high_noise.safetensors"])
    transformer: Side | None = Field(description="Its expert; null for a model that has one.")
    network_multiplier: float | None = Field(description="Its scale.", examples=[1.0])


class RequestSummary(RequestStatus):
    """A request in a list: its status, and what it makes."""

    pair_key: str = Field(description="Hash of the LoRA files' contents and sides.", examples=["9f0c1d2e3a4b5c6d"])
    prompts: list[PromptSummary] = Field(description="One for each video.")
    loras: list[LoraSummary] = Field(description="Those of the first video.")
    recipe: Recipe = Field(description="Whose frames the videos equal.")
    speed: Speed = Field(description="The speed profile.")


class RequestList(BaseModel):
    """One page of requests, the newest first."""

    requests: list[RequestSummary] = Field(
        description="At most `limit`. With filters there may be fewer, even none, while `next` says that more follow."
    )
    next: str | None = Field(description="For `after`, to get the page behind this one; null on the last.")


class EffectiveLora(LoraSummary):
    """One LoRA of a request that can be posted again."""

    network_multiplier: float | None = Field(
        description="Its scale; null where flags in the prompts give each video its own.", examples=[1.0]
    )


class EffectivePrompt(BaseModel):
    """One prompt with nothing left to default; the fields are those of a request."""

    prompt: str = Field(description="With its trigger word in place.", examples=["sks a photo of a person"])
    trigger_word: str | None = Field(description="The one that was put in its place.")
    width: int = Field(description="Pixels.", examples=[832])
    height: int = Field(description="Pixels.", examples=[480])
    seed: int = Field(description="The one in effect.", examples=[42])
    sample_steps: int = Field(description="Denoising steps.", examples=[25])
    guidance_scale: float = Field(description="Classifier-free guidance.", examples=[4.0])
    neg: str = Field(description="Negative prompt.", examples=[""])
    num_frames: int = Field(description="Frames.", examples=[41])
    fps: int = Field(description="Frames per second.", examples=[16])
    sampler: Sampler = Field(description="The scheduler.")
    shift: float | None = Field(description="Flow shift; null is the one that comes with the sampler.")
    output_format: OutputFormat = Field(description="Of the file.")
    ctrl_img: str | None = Field(
        description=("The control image as a data URL. Null where there is none, and where `replayable` is false.")
    )
    fit: Fit | None = Field(description="How the image gets the video's size.")


class EffectiveRequest(BaseModel):
    """The request as it was understood: posted again, it gives the same frames. It never has a token in it."""

    model: str = Field(description="Id of the model.", examples=["wan22_14b_t2v"])
    loras: list[EffectiveLora] = Field(description="The LoRAs; those of the Hub pinned to the commit that was used.")
    prompts: list[EffectivePrompt] = Field(description="One for each video.")
    recipe: Recipe = Field(description="Whose frames the videos equal.")
    speed: Speed = Field(description="The speed profile.")
    priority: Priority = Field(description="Beside the tenant's other requests.")
    strict: bool = Field(description="Whether tensors without a place were refused.", examples=[True])
    preview: bool = Field(description="Whether previews are among its events.", examples=[False])


class RequestDetails(RequestSummary):
    """A request with all values in effect."""

    request: EffectiveRequest = Field(description="For `POST /v1/inference`.")
    replayable: bool = Field(
        description=(
            "False where control images are left out of `request`: one is gone, or together they are longer than a "
            "body may be."
        ),
        examples=[True],
    )


class PromptForecast(BaseModel):
    """What one prompt would become."""

    index: int = _INDEX
    width: int = Field(description="Pixels, after snapping.", examples=[832])
    height: int = Field(description="Pixels, after snapping.", examples=[480])
    num_frames: int = Field(description="After rounding.", examples=[41])
    seconds: float = Field(description="Predicted seconds of one replica.", examples=[95.0])
    warnings: list[str] = Field(description="What looks like a mistake.")


class RequestForecast(BaseModel):
    """What a request would cost, if it were sent now."""

    seconds: float = Field(description="Predicted seconds of one replica, for all prompts.", examples=[95.0])
    eta_seconds: float | None = Field(description="Predicted seconds until its last video is finished.")
    queue_position: int | None = Field(description="Renders expected to start before its first one.", examples=[0])
    prompts: list[PromptForecast] = Field(description="One for each video.")
