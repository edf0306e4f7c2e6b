"""Results: the metadata of a finished render, as typed values that the API returns field by field.

A pipeline returns `MadeWith` and `PipelineSeconds`. The Generator adds its own values and stores a `RenderMetadata`
with the output. The API returns it unchanged. So a new fact about a render needs one field here and one assignment.
"""

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from serve_app.spec import Expert, Fit, Recipe, Sampler, Speed


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Application(StrEnum):
    """How a LoRA acts on its expert."""

    NONE = "none"  # its multiplier is 0
    ADAPTER = "adapter"  # computed beside the weights, as the reference server does
    MERGED = "merged"  # in the weights, as AI Toolkit's previews have it


class AppliedLora(_Value):
    """One LoRA as it acted on one expert."""

    transformer: Expert = Field(description="The expert that it acted on.")
    network_multiplier: float = Field(description="Its scale.")
    sha256: str | None = Field(description="Of the file's bytes, hex.")
    application: Application = Field(description="`adapter`, `merged`, or `none` where its scale is 0.")
    left_out: tuple[str, ...] = Field((), description="Tensors without a place in the model (`strict: false`).")


class LoraUse(AppliedLora):
    """One LoRA of the request, or of the server's draft, in their order."""

    path: str = Field(description="As the client wrote it, without secrets.")


class ResidentLora(_Value):
    """One LoRA that the replica keeps ready."""

    sha256: str | None = Field(description="Of the file's bytes, hex.")
    bytes: int = Field(description="Size of its tensors.")
    memory: Literal["gpu", "host"] = Field(description="Where it is kept.")


class Attention(StrEnum):
    """The kernel that computes attention."""

    NATIVE = "native"  # what PyTorch chooses
    CUDNN = "cudnn"
    FLASH_3 = "flash_attention_3"  # Hopper cards, with the extra `hopper`


class Kernels(_Value):
    """What a replica found at its start, for the speed profiles but `exact`."""

    attention: Attention = Field(Attention.NATIVE, description="What computes attention there.")
    compiled: bool = Field(False, description="Whether blocks are compiled.")
    float8: bool = Field(False, description="Whether the device multiplies in FP8, which `turbo` needs.")


class Parallelism(_Value):
    """How the GPUs of one Generator shared a render; their number is the product of the three."""

    guidance: int = Field(1, description="2: the passes with the prompt and with the negative prompt ran side by side.")
    ulysses: int = Field(1, description="GPUs that shared the tokens, and for attention the heads.")
    ring: int = Field(1, description="GPUs that shared the tokens, and passed keys and values on.")

    @property
    def sequence(self) -> int:
        """Return into how many parts the tokens were split."""
        return self.ulysses * self.ring

    @property
    def ranks(self) -> int:
        """Return the number of GPUs."""
        return self.guidance * self.sequence

    def is_even(self, tokens: int) -> bool:
        """Return whether every GPU gets as many of `tokens` tokens."""
        return tokens % self.sequence == 0


class Acceleration(_Value):
    """How a speed profile was carried out on its device."""

    speed: Speed = Field(
        Speed.EXACT, description="`exact`: the recipe's own numerics; `fast`: rounded otherwise; `turbo`: approximated."
    )
    attention: Attention = Field(Attention.NATIVE, description="The kernel that computed attention.")
    compiled: bool = Field(False, description="Whether the transformer's blocks were compiled.")
    float8: bool = Field(False, description="Whether linear layers of the blocks were multiplied in FP8 (`turbo`).")
    step_cache: float | None = Field(None, description="The step cache's threshold (`turbo`); null: there was none.")
    passes_reused: int = Field(0, description="Passes of an expert that reused what the one before did.")
    parallelism: Parallelism = Field(Parallelism(), description="How several GPUs shared the render.")


class Runtime(_Value):
    """What the render ran on."""

    device: str = Field(description='The product name of the GPU, or "cpu".')
    dtype: str = Field(description="Compute dtype.")
    offload: str = Field(description="Where weights waited while they were not in use.")
    offload_reason: str = Field(description="Why there.")
    pristine: str = Field(description="Where weights that merged LoRAs change were kept as they were.")
    resident_loras: tuple[ResidentLora, ...] = Field((), description="LoRAs ready on the replica afterwards.")
    pinned: bool = Field(False, description="Whether experts that wait in host memory are page-locked.")
    predicted_bytes: int | None = Field(
        None, description="GPU memory that the render was expected to hold at most; null on a CPU."
    )
    kernels: Kernels = Field(Kernels(), description="What the speed profiles but `exact` have there.")
    peak_bytes: int | None = Field(None, description="Most GPU memory that the last render held; null on a CPU.")


class StartSeconds(_Value):
    """Seconds of each part of a Generator's start, one after the other."""

    imports: float = Field(0.0, description="Importing the libraries of the pipeline.")
    load: float = Field(0.0, description="Opening the checkpoints; what cannot be used as stored is converted.")
    place: float = Field(0.0, description="Moving weights to where the memory plan wants them.")
    warm_up: float = Field(0.0, description="A small render, on a GPU; it compiles what `fast` needs.")


class GeneratorRuntime(_Value):
    """What a Generator publishes of itself to its Dispatcher."""

    device: str
    dtype: str
    offload: str
    pristine: str
    start: StartSeconds | None = None
    kernels: Kernels | None = None  # None: of an older version
    pairs: tuple[str, ...] = ()  # pair keys that are ready there, the loaded one first


class ImageUse(_Value):
    """The control image of a render, and what was done to it."""

    sha256: str = Field(description="Of the file's bytes, hex.")
    fit: Fit = Field(description="How it got the video's size.")
    format: str = Field(description="png, jpeg, gif, webp or bmp.")
    width: int = Field(description="Pixels, as stored.")
    height: int = Field(description="Pixels, as stored.")
    frames: int = Field(description="Above 1 for an animation, of which the first frame was used.")
    alpha_dropped: bool = Field(description="Whether it had transparent parts, which were ignored.")
    orientation_ignored: int | None = Field(description="An EXIF orientation by which it was not turned.")


class CacheUse(_Value):
    """How often a render found what it needed in a cache."""

    hits: int = 0
    misses: int = 0


class MadeWith(_Value):
    """How a pipeline made its frames: what the recipe left open, and what acted."""

    recipe: Recipe
    sampler: Sampler
    shift: float = Field(description="Flow shift in effect.")
    boundary_step: int = Field(description="Denoising steps that the high noise expert ran.")
    acceleration: Acceleration = Acceleration()
    loras: tuple[AppliedLora, ...]  # all that acted, in the order of `RenderSpec.acting`
    runtime: Runtime
    warnings: tuple[str, ...] = Field((), description="What showed only while it was made.")
    embeddings: CacheUse = CacheUse()  # of its prompts


class PipelineSeconds(_Value):
    """Seconds of each part of one render, inside the pipeline."""

    lora: float = Field(description="Making the LoRA state right.")
    text: float = Field(description="Encoding prompts.")
    denoise: float = Field(description="All denoising steps.")
    decode: float = Field(description="Latents to frames.")


class Timings(PipelineSeconds):
    """Seconds of each part of one attempt, from its claim to its published output."""

    fetch: float = Field(description="Getting LoRA files onto the replica's disk.")
    generate: float = Field(description="The pipeline as a whole: lora, text, denoise and decode.")
    encode: float = Field(description="Frames to a file.")
    store: float = Field(description="Storing the file.")


class RenderMetadata(_Value):
    """What a user needs to make the same video again, and how long each part took."""

    model: str = Field(description="Id of the model that made it.")
    recipe: Recipe = Field(description="Whose frames it equals.")
    sampler: Sampler = Field(description="The scheduler in effect.")
    shift: float = Field(description="Flow shift in effect.")
    boundary_step: int = Field(description="Denoising steps that the high noise expert ran.")
    acceleration: Acceleration = Field(description="The speed profile, and what carried it out.")
    sampler_assumed: bool = Field(description="Whether no metadata told which sampler the previews had.")
    sample_steps: int = Field(description="Denoising steps.")
    guidance_scale: float = Field(description="Classifier-free guidance.")
    width: int = Field(description="Pixels, after snapping.")
    height: int = Field(description="Pixels, after snapping.")
    num_frames: int = Field(description="After rounding.")
    trained_with: str | None = Field(description="Version of AI Toolkit, from the files' metadata.")
    loras: tuple[LoraUse, ...] = Field(description="In the request's order.")
    draft_loras: tuple[LoraUse, ...] = Field(
        (), description="The server's few-step LoRAs, which acted before the request's (`recipe: draft`)."
    )
    image: ImageUse | None = Field(None, description="The control image, where there was one.")
    pair_key: str = Field(description="Hash of the LoRA files' contents and sides.")
    warnings: tuple[str, ...] = Field(description="What the client should look at.")
    attempt: int = Field(description="From 1; above 1 where replicas were lost.")
    runtime: Runtime = Field(description="What it ran on.")
    timings: Timings = Field(description="Seconds.")
