"""Request bodies: names and limits are the reference server's; fields that it ignores are refused here."""

from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic_core import PydanticCustomError

from serve_app.api.schemas.items import few_problems
from serve_app.api.schemas.scalars import WHOLE, Flag, Number
from serve_app.jobs.records import WebhookEvent
from serve_app.models import limits
from serve_app.spec import Expert, Fit, OutputFormat, Priority, Recipe, Sampler, Speed

_SPARE = 5  # fields more than there are, of which each is named
_ONE_OF_FOUR = "The same as `ctrl_img`; one of the four may be set."
CONTROL_IMAGES = ("ctrl_img", "ctrl_img_1", "ctrl_img_2", "ctrl_img_3")

Multiplier = Annotated[Number, Field(ge=limits.MULTIPLIER.least, le=limits.MULTIPLIER.most, allow_inf_nan=False)]

Pixels = Annotated[int, Field(ge=limits.SIZE.least, le=limits.SIZE.most), WHOLE]
Seed = Annotated[int, Field(ge=limits.SEED.least, le=limits.SEED.most), WHOLE]
Steps = Annotated[int, Field(ge=limits.SAMPLE_STEPS.least, le=limits.SAMPLE_STEPS.most), WHOLE]
Frames = Annotated[int, Field(ge=limits.NUM_FRAMES.least, le=limits.NUM_FRAMES.most), WHOLE]
FramesPerSecond = Annotated[int, Field(ge=limits.FPS.least, le=limits.FPS.most), WHOLE]
TriggerWord = Annotated[str, Field(max_length=limits.TRIGGER_LENGTH)]


def _printable(token: SecretStr) -> SecretStr:
    value = token.get_secret_value()
    if not (value.isascii() and value.isprintable()):
        raise ValueError("must be printable ASCII, as it is sent in a header")
    return token


Token = Annotated[
    SecretStr,
    Field(max_length=limits.TOKEN_LENGTH, json_schema_extra={"pattern": "^[ -~]*$"}),
    AfterValidator(_printable),
]


class Body(BaseModel):
    """Part of a request's body; unknown fields are refused."""

    # A limit on length, even of 0, has pydantic look into each text: an unpaired surrogate, which JSON can spell and
    # UTF-8 cannot, is then refused by its field's name instead of failing wherever the text is written.
    model_config = ConfigDict(extra="forbid", str_min_length=0)

    @model_validator(mode="before")
    @classmethod
    def _few_fields(cls, value: Any) -> Any:
        """Refuse an object of a hundred thousand fields in one piece: a problem for each takes a second to write."""
        if isinstance(value, dict) and len(value) > len(cls.model_fields) + _SPARE:
            counts = {"found": len(value), "known": len(cls.model_fields)}
            raise PydanticCustomError("too_many_fields", "Input has {found} fields; it can have {known}", counts)
        return value


class Side(StrEnum):
    """The expert of a pair that a LoRA was trained for."""

    HIGH = Expert.HIGH.value
    LOW = Expert.LOW.value


class LoraItem(Body):
    """One LoRA file and the expert it is for."""

    path: str = Field(
        max_length=limits.PATH_LENGTH,
        description=(
            "The .safetensors file: a path inside the server's `lora_root`, `https://...`, "
            "`hf://org/repo/file[@revision]`, `s3://bucket/key`, `gs://...` or `az://...`."
        ),
        examples=["my_lora_job/my_high_noise.safetensors", "hf://me/my-lora/my_high_noise.safetensors"],
    )
    transformer: Side | None = Field(
        None,
        description=("The expert the file was trained for, of a model that has two: `high` (noise) or `low` (noise)."),
    )
    network_multiplier: Multiplier | None = Field(
        None, description="LoRA scale; 1.0 when omitted. Changing it between requests needs no reload."
    )

    @property
    def expert(self) -> Expert | None:
        """Return the expert that the item names; None where it names none."""
        return None if self.transformer is None else Expert(self.transformer)


class PromptItem(Body):
    """One video to render. What is omitted takes the model's default; see `GET /v1/models`."""

    prompt: str = Field(
        max_length=limits.PROMPT_LENGTH,
        description="What to show. `[trigger]` is replaced by the trigger word; the limit holds after that too.",
    )
    trigger_word: TriggerWord | None = Field(
        None, description="Replaces `[trigger]` in this prompt; overrides the request's."
    )
    width: Pixels | None = Field(None, description="Pixels.")
    height: Pixels | None = Field(None, description="Pixels.")
    seed: Seed | None = Field(None, description="-1 draws a random one; the result tells which.")
    sample_steps: Steps | None = Field(None, description="Denoising steps.")
    guidance_scale: Number | None = Field(
        None,
        ge=limits.GUIDANCE_SCALE.least,
        le=limits.GUIDANCE_SCALE.most,
        allow_inf_nan=False,
        description="Classifier-free guidance; 1.0 = none.",
    )
    neg: str | None = Field(None, max_length=limits.PROMPT_LENGTH, description="Negative prompt; empty when omitted.")
    num_frames: Frames | None = Field(None, description="Frames of the video.")
    fps: FramesPerSecond | None = Field(None, description="Frames per second of the file.")
    sampler: Sampler | None = Field(
        None,
        description=(
            "`unipc` (the base checkpoint's) or `euler` (flow matching). When omitted, the recipe chooses: `reference` "
            "takes unipc, `preview` what AI Toolkit's previews used when the LoRA was trained, `draft` what its "
            "few-step LoRAs need."
        ),
    )
    shift: Number | None = Field(
        None,
        gt=0,
        le=limits.MOST_SHIFT,
        allow_inf_nan=False,
        description="Flow shift of the sampler.",
    )
    output_format: OutputFormat = Field(
        OutputFormat.MP4,
        description="`mp4` (H.264), `webp` (animated) or `png` (a ZIP of lossless frames).",
    )
    ctrl_img: str | None = Field(
        None,
        max_length=limits.IMAGE_LENGTH,
        description=(
            "The image that the video starts from, for a model that takes one: base64, a data URL, `https://...`, "
            "`hf://org/repo/file[@revision]`, `s3://bucket/key`, `gs://...`, `az://...`, or a path inside the server's "
            "`image_root`. PNG, JPEG, WebP, GIF or BMP."
        ),
    )
    ctrl_img_1: str | None = Field(None, max_length=limits.IMAGE_LENGTH, description=_ONE_OF_FOUR)
    ctrl_img_2: str | None = Field(None, max_length=limits.IMAGE_LENGTH, description=_ONE_OF_FOUR)
    ctrl_img_3: str | None = Field(None, max_length=limits.IMAGE_LENGTH, description=_ONE_OF_FOUR)
    fit: Fit | None = Field(
        None,
        description=(
            "How the image gets the video's size: `stretch` (when omitted, and as the reference server does), `crop` "
            "(covers it, cut evenly), `pad` (lies within it, on black)."
        ),
    )

    def control_images(self) -> list[str]:
        """Return the names of the control-image fields that carry a value."""
        return [name for name in CONTROL_IMAGES if getattr(self, name)]


class RequestOptions(Body):
    """What holds for all videos of a request."""

    trigger_word: TriggerWord | None = Field(None, description="Replaces `[trigger]` in every prompt without its own.")
    hf_token: Token | None = Field(
        None,
        description=(
            "For LoRAs and images in private or gated Hugging Face repositories. Never logged or returned, and "
            "forgotten when the request ends."
        ),
    )
    recipe: Recipe = Field(
        Recipe.REFERENCE,
        description=(
            "Whose frames the video must equal: `reference`, the reference server's, or `preview`, those of AI "
            "Toolkit's previews during training. `draft` is for trying ideas: the server stacks the LoRAs on few-step "
            "ones of its own, so that a video takes a few steps without guidance; `GET /v1/models` says for which "
            "models."
        ),
    )
    speed: Speed | None = Field(
        None,
        description=(
            "`exact`: the recipe's own numerics; `fast`: the same weights and steps with faster kernels, which round "
            "otherwise; `turbo`: approximated, with FP8 and, if the server says so, a step cache. The server's default "
            "when omitted; the server may allow only some."
        ),
    )
    priority: Priority = Field(
        Priority.NORMAL,
        description=(
            "Goes before waiting renders of lower priority of the same tenant; it takes nothing from the shares of "
            "others."
        ),
    )
    strict: Flag = Field(
        True,
        description=(
            "Refuse a LoRA file with tensors that this model has no place for. `false` leaves them out, and the result "
            "lists them."
        ),
    )
    preview: Flag = Field(
        False,
        description=(
            "Show small previews of what is being made among the events of the request; they cost less than a "
            "hundredth of the time and change no frame."
        ),
    )
    webhook_url: str | None = Field(
        None,
        min_length=1,
        max_length=limits.PATH_LENGTH,
        description=(
            "`https://...`: where to tell what becomes of the request, signed as Standard Webhooks has it and repeated "
            "until it is answered with 2xx, for up to a day."
        ),
        examples=["https://example.com/hooks/videos"],
    )
    webhook_events: list[WebhookEvent] | None = Field(
        None,
        min_length=1,
        max_length=len(WebhookEvent),
        description="Of what: `started`, `output` (each finished video), `ended`. When omitted, `ended`.",
    )

    @model_validator(mode="after")
    def _events_have_an_address(self) -> Self:
        if self.webhook_events is not None and self.webhook_url is None:
            raise PydanticCustomError("webhook_url_missing", "webhook_events needs webhook_url")
        return self


class InferenceRequest(RequestOptions):
    """Body of `POST /v1/inference`."""

    model: str = Field(max_length=limits.NAME_LENGTH, description="Model id, as listed by `GET /v1/models`.")
    loras: list[LoraItem] = Field(max_length=limits.LORAS, description=("The LoRA files."))
    prompts: Annotated[list[PromptItem], few_problems(PromptItem, limits.PROMPTS.most)] = Field(
        min_length=limits.PROMPTS.least, max_length=limits.PROMPTS.most, description="One video each."
    )
