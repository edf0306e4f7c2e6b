"""Service descriptions: the answers of `GET /v1/models` and `GET /health`."""

from typing import Literal

from pydantic import BaseModel, Field

from serve_app.api.schemas.errors import ErrorBody
from serve_app.models.card import ImageInput
from serve_app.results import Kernels
from serve_app.spec import Expert, Sampler, Speed

_NOTICE = "What a user must know about this service, if anything."


class DraftDefaults(BaseModel):
    """What a request with the recipe `draft` takes where a prompt names none; guidance is always off."""

    sample_steps: int = Field(description="Denoising steps.", examples=[4])
    sampler: Sampler = Field(description="The scheduler.", examples=["euler"])
    shift: float = Field(description="Its flow shift.", examples=[5.0])


class Model(BaseModel):
    """A model that this service runs, with its defaults."""

    id: str = Field(description="As requests name it.")
    title: str = Field(description="As people name it.", examples=["Wan 2.2 T2V A14B"])
    experts: list[Expert] = Field(
        description="`high` and `low`: it takes LoRA pairs; `only`: it takes files without `transformer`."
    )
    control_image: ImageInput = Field(description="Whether a video starts from an image: `optional` is as you like.")
    speeds: list[Speed] = Field(description="The speed profiles that requests may name.")
    default_speed: Speed = Field(description="The speed profile when omitted.")
    draft: DraftDefaults | None = Field(description="Of the recipe `draft`; null where it is not served.")
    base_model: str = Field(description="Checkpoint of scheduler, text encoder, tokenizer and VAE.")
    transformer_model: str = Field(description="Checkpoint of the experts.")
    resolution_divisor: int = Field(description="Width and height are floored to a multiple.")
    default_steps: int = Field(description="Denoising steps when omitted.")
    default_guidance_scale: float = Field(description="Classifier-free guidance when omitted.")
    default_seed: int = Field(description="Seed of the first prompt when omitted; each further one has the next.")
    default_width: int = Field(description="Pixels when omitted.")
    default_height: int = Field(description="Pixels when omitted.")
    requires_control_image: bool = Field(description="Whether a video starts from an image that must be sent.")
    is_video_model: bool = Field(description="Whether it makes videos.")
    default_num_frames: int | None = Field(description="Frames when omitted.")
    default_fps: int | None = Field(description="Frames per second when omitted.")
    demo: bool = Field(examples=[False], description="True when the weights are the tiny demo checkpoint's.")
    notice: str | None = Field(None, description=_NOTICE)


class NamedModel(BaseModel):
    """A name that `model` may have in OpenAI's API, in the shape that its clients list."""

    id: str = Field(description="A name of the arg `aliases`, or a model's id.", examples=["my-style"])
    object: Literal["model"] = Field("model", examples=["model"])
    created: Literal[0] = Field(0, description="Clients of OpenAI require it; nothing is known of it here.")
    owned_by: str = Field(description="For an alias, the model that it stands for; for a model, its base model.")


class Models(BaseModel):
    """Every model of this service."""

    models: list[Model] = Field(description="One for each model.")
    object: Literal["list"] = Field("list", examples=["list"])
    data: list[NamedModel] = Field(description="The aliases, and the models again, as clients of OpenAI list them.")


class ModelHealth(BaseModel):
    """One model of the service."""

    model: str = Field(description="Id of the model.")
    status: Literal["healthy", "unhealthy", "unknown"] = Field(
        description="Whether its Dispatcher is alive, so that its renders start; unknown while the job store is away."
    )
    queued: int | None = Field(description="Renders that wait.")
    running: int | None = Field(description="Renders that a Generator works on.")
    kernels: list[Kernels] = Field(
        description="What its Generators have for the speed profiles but `exact`, each kind once; empty if unknown."
    )
    demo: bool = Field(examples=[False])
    notice: str | None = Field(None, description=_NOTICE)


class Health(BaseModel):
    """The API answers; whether renders start."""

    status: Literal["healthy", "unhealthy"] = Field("healthy", examples=["healthy"])
    model: str = Field(description="Id of the model that is served; of several, of the first.")
    profile: str = Field(examples=["gpu"])
    demo: bool = Field(examples=[False])
    notice: str | None = Field(None, description=_NOTICE)
    models: list[ModelHealth] = Field(description="One for each model that is served.")
    problem: ErrorBody | None = Field(None, description="Why no render starts now; what is accepted waits.")
