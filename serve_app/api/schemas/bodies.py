"""Request bodies: names and limits are the reference server's; fields that it ignores are refused here."""

from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from serve_app.models import limits
from serve_app.spec import Expert, OutputFormat, Priority, Recipe, Sampler, Speed

CONTROL_IMAGES = ("ctrl_img", "ctrl_img_1", "ctrl_img_2", "ctrl_img_3")

Multiplier = Annotated[float, Field(ge=limits.MULTIPLIER.least, le=limits.MULTIPLIER.most, allow_inf_nan=False)]


def _printable(token: SecretStr) -> SecretStr:
    value = token.get_secret_value()
    if not (value.isascii() and value.isprintable()):
        raise ValueError("must be printable ASCII, as it is sent in a header")
    return token


Token = Annotated[SecretStr, AfterValidator(_printable)]


class Body(BaseModel):
    """Part of a request's body; unknown fields are refused."""

    # A limit on length, even of 0, has pydantic look into each text: an unpaired surrogate, which JSON can spell and
    # UTF-8 cannot, is then refused by its field's name instead of failing wherever the text is written.
    model_config = ConfigDict(extra="forbid", str_min_length=0)


class Side(StrEnum):
    """The expert of a pair that a LoRA was trained for."""

    HIGH = Expert.HIGH.value
    LOW = Expert.LOW.value


class LoraItem(Body):
    """One LoRA file and the expert it is for."""

    path: str = Field(
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

    prompt: str = Field(description="What to show. `[trigger]` is replaced by the trigger word.")
    trigger_word: str | None = Field(None, description="Replaces `[trigger]` in this prompt; overrides the request's.")
    width: int | None = Field(None, ge=limits.SIZE.least, le=limits.SIZE.most, description="Pixels.")
    height: int | None = Field(None, ge=limits.SIZE.least, le=limits.SIZE.most, description="Pixels.")
    seed: int | None = Field(
        None,
        ge=limits.SEED.least,
        le=limits.SEED.most,
        description="-1 draws a random one; the result tells which.",
    )
    sample_steps: int | None = Field(
        None, ge=limits.SAMPLE_STEPS.least, le=limits.SAMPLE_STEPS.most, description="Denoising steps."
    )
    guidance_scale: float | None = Field(
        None,
        ge=limits.GUIDANCE_SCALE.least,
        le=limits.GUIDANCE_SCALE.most,
        allow_inf_nan=False,
        description="Classifier-free guidance; 1.0 = none.",
    )
    neg: str | None = Field(None, description="Negative prompt; empty when omitted.")
    num_frames: int | None = Field(
        None, ge=limits.NUM_FRAMES.least, le=limits.NUM_FRAMES.most, description="Frames of the video."
    )
    fps: int | None = Field(None, ge=limits.FPS.least, le=limits.FPS.most, description="Frames per second of the file.")
    sampler: Sampler | None = Field(
        None,
        description=(
            "`unipc` (the base checkpoint's) or `euler` (flow matching). When omitted, the recipe chooses: `reference` "
            "takes unipc, `preview` what AI Toolkit's previews used when the LoRA was trained."
        ),
    )
    shift: float | None = Field(
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
    ctrl_img: str | None = Field(None, description="An image that the video starts from.")
    ctrl_img_1: str | None = Field(None, description="An image that the video starts from.")
    ctrl_img_2: str | None = Field(None, description="An image that the video starts from.")
    ctrl_img_3: str | None = Field(None, description="An image that the video starts from.")

    def control_images(self) -> list[str]:
        """Return the names of the control-image fields that carry a value."""
        return [name for name in CONTROL_IMAGES if getattr(self, name)]


class InferenceRequest(Body):
    """Body of `POST /v1/inference`."""

    model: str = Field(description="Model id, as listed by `GET /v1/models`.")
    loras: list[LoraItem] = Field(description=("The LoRA files."))
    prompts: list[PromptItem] = Field(
        min_length=limits.PROMPTS.least, max_length=limits.PROMPTS.most, description="One video each."
    )
    trigger_word: str | None = Field(None, description="Replaces `[trigger]` in every prompt without its own.")
    hf_token: Token | None = Field(
        None,
        description=(
            "For LoRAs in private or gated Hugging Face repositories. Never logged or returned, and forgotten when the "
            "request ends."
        ),
    )
    recipe: Recipe = Field(
        Recipe.REFERENCE,
        description=(
            "Whose frames the video must equal: `reference`, the reference server's, or `preview`, those of AI "
            "Toolkit's previews during training."
        ),
    )
    speed: Speed | None = Field(
        None,
        description=(
            "`exact`: the recipe's own numerics; `fast`: the same weights and steps with faster kernels, which round "
            "otherwise. The server's default when omitted; the server may allow only some."
        ),
    )
    priority: Priority = Field(
        Priority.NORMAL,
        description=(
            "Goes before waiting renders of lower priority of the same tenant; it takes nothing from the shares of "
            "others."
        ),
    )
    strict: bool = Field(
        True,
        description=(
            "Refuse a LoRA file with tensors that this model has no place for. `false` leaves them out, and the result "
            "lists them."
        ),
    )
