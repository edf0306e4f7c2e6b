"""What a client may send. Names and limits are the reference server's; what it ignored is refused here."""

from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, SecretStr

from serve_app.spec import Expert, OutputFormat, Priority, Recipe, Sampler

_EXAMPLE_LORAS: list[JsonValue] = [
    {"path": "my_lora_job/my_high_noise.safetensors", "transformer": "high", "network_multiplier": 1.0},
    {"path": "my_lora_job/my_low_noise.safetensors", "transformer": "low", "network_multiplier": 1.0},
]

EXAMPLES: list[JsonValue] = [
    {
        "model": "wan22_14b_t2v",
        "trigger_word": "sks",
        "loras": _EXAMPLE_LORAS,
        "prompts": [
            {
                "prompt": "[trigger] a photo of a person",
                "width": 1024,
                "height": 1024,
                "seed": 42,
                "sample_steps": 25,
                "guidance_scale": 4.0,
                "neg": "",
                "num_frames": 41,
                "fps": 16,
            }
        ],
    }
]

_SIZE = "Pixels; floored to a multiple of 32, in the recipe `preview` of 16."

Multiplier = Annotated[float, Field(ge=-2.0, le=2.0, allow_inf_nan=False)]


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
        description=(
            "The expert the file was trained for: `high` (noise) or `low` (noise). Required, but for a combined file "
            "of both experts."
        ),
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
    width: int | None = Field(None, ge=64, le=4096, description=_SIZE)
    height: int | None = Field(None, ge=64, le=4096, description=_SIZE)
    seed: int | None = Field(
        None,
        ge=-1,
        le=2**64 - 1,
        description="When omitted: 42 plus the prompt's index. -1 draws a random one; the result tells which.",
    )
    sample_steps: int | None = Field(None, ge=1, le=150, description="Denoising steps; 25 when omitted.")
    guidance_scale: float | None = Field(
        None,
        ge=0,
        le=20,
        allow_inf_nan=False,
        description="Classifier-free guidance; 4.0 when omitted, 1.0 = none.",
    )
    neg: str | None = Field(None, description="Negative prompt; empty when omitted.")
    num_frames: int | None = Field(
        None, ge=1, le=1000, description="Frames; rounded to n // 4 * 4 + 1. 41 when omitted."
    )
    fps: int | None = Field(None, ge=1, le=120, description="Frames per second of the file; 16 when omitted.")
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
        le=100,
        allow_inf_nan=False,
        description="Flow shift of the sampler; when omitted, 3.0 for unipc (the checkpoint's) and 5.0 for euler.",
    )
    output_format: OutputFormat = Field(
        OutputFormat.MP4,
        description="`mp4` (H.264), `webp` (animated) or `png` (a ZIP of lossless frames).",
    )
    ctrl_img: str | None = Field(None, description="Not used by text-to-video models: a value is refused.")
    ctrl_img_1: str | None = Field(None, description="Not used by text-to-video models: a value is refused.")
    ctrl_img_2: str | None = Field(None, description="Not used by text-to-video models: a value is refused.")
    ctrl_img_3: str | None = Field(None, description="Not used by text-to-video models: a value is refused.")

    def control_images(self) -> list[str]:
        """Names of the control-image fields that carry a value."""
        return [name for name in ("ctrl_img", "ctrl_img_1", "ctrl_img_2", "ctrl_img_3") if getattr(self, name)]


class InferenceRequest(Body):
    """Body of `POST /v1/inference`."""

    model_config = ConfigDict(json_schema_extra={"examples": EXAMPLES})

    model: str = Field(description="Model id, as listed by `GET /v1/models`.", examples=["wan22_14b_t2v"])
    loras: list[LoraItem] = Field(
        description=(
            "The LoRA pair: one `high` and/or one `low` file, each once. A server whose arg `max_loras_per_side` is "
            "above 1 takes that many of each, which act in their order."
        )
    )
    prompts: list[PromptItem] = Field(min_length=1, max_length=1000, description="One video each.")
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
