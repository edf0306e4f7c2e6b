"""RenderSpec: every value that one render needs, resolved, as it is stored with the job (specification)."""

import hashlib
from collections.abc import Iterable
from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class Expert(StrEnum):
    """A denoising expert of a model, in the words of the HTTP API."""

    HIGH = "high"  # `transformer` of a pair: timesteps at or above the boundary
    LOW = "low"  # `transformer_2` of a pair: timesteps below it
    ONLY = "only"  # the transformer of a model that has one; no client names it

    @property
    def label(self) -> str:
        """Return its name in messages: "high noise expert", "transformer"."""
        return "transformer" if self is Expert.ONLY else f"{self.value} noise expert"


PAIR = (Expert.HIGH, Expert.LOW)


class Recipe(StrEnum):
    """Whose frames a render must equal."""

    REFERENCE = "reference"  # the reference server's
    PREVIEW = "preview"  # those of AI Toolkit's own previews during training
    DRAFT = "draft"  # nobody's: few steps without guidance, by LoRAs of the server's that were distilled for it

    @property
    def rules(self) -> "Recipe":
        """Return the recipe whose sizes, boundary and placeholders it has: a draft has the reference's."""
        return Recipe.REFERENCE if self is Recipe.DRAFT else self


class Sampler(StrEnum):
    """A scheduler that solves the flow from noise to video."""

    UNIPC = "unipc"  # UniPC multistep; as the base checkpoint ships it if no shift is given
    EULER = "euler"  # Euler flow matching


class Speed(StrEnum):
    """What a render may trade for time. The steps are the same in each."""

    EXACT = "exact"  # the recipe's own numerics
    FAST = "fast"  # the best kernels of the GPU, compiled blocks, merged LoRAs: rounds otherwise
    TURBO = "turbo"  # fast, with linear layers in FP8, and passes that reuse what the ones before did


class Priority(StrEnum):
    """How urgent a request is, beside the other requests of its tenant."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"

    @property
    def rank(self) -> int:
        """Larger goes first; the form in which the store keeps it."""
        return _BY_RANK.index(self)

    @classmethod
    def of_rank(cls, rank: int) -> "Priority":
        """Return the priority with that rank."""
        return _BY_RANK[rank]


_BY_RANK = tuple(Priority)


class OutputFormat(StrEnum):
    """Container of the finished video; the value is also the file extension, but for PNG, which is a ZIP."""

    MP4 = "mp4"
    WEBP = "webp"
    PNG = "png"

    @property
    def extension(self) -> str:
        """Return the file name extension without the dot."""
        return "zip" if self is OutputFormat.PNG else self.value

    @property
    def media_type(self) -> str:
        """Return the content type of the file."""
        return {"mp4": "video/mp4", "webp": "image/webp", "png": "application/zip"}[self.value]


class Variant(StrEnum):
    """A form in which a finished video can be downloaded."""

    VIDEO = "video"  # the file itself
    THUMBNAIL = "thumbnail"  # the frame in its middle, small
    SPRITESHEET = "spritesheet"  # up to 25 frames, from left to right and from top to bottom


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LoraFile(_Frozen):
    """One LoRA of one expert, pinned to the content it had when the request was accepted.

    `content` identifies what acts. It begins with `blob`, which identifies the bytes: the SHA-256 (hex) where it is
    known, else "etag-" and a hash of the address, its entity tag and its size. Where an `adapter_config` scales the
    bytes, "+" and a hash of that follow. `sha256` is None until somebody has read the whole file.
    """

    expert: Expert
    reference: str  # as the client wrote it
    location: str  # an absolute path, or a URL that no longer moves with a branch
    content: str
    sha256: str | None
    multiplier: float
    size: int | None = None  # bytes; None if they are not counted
    adapter_config: str | None = None  # what PEFT's adapter_config.json beside the file says of scales

    @property
    def blob(self) -> str:
        """Return the id of the file's bytes, without its adapter config."""
        return self.content.partition("+")[0]


class Fit(StrEnum):
    """How an image gets the size of its video."""

    STRETCH = "stretch"  # both sides scaled on their own, as the reference server does
    CROP = "crop"  # scaled until it covers the video; what stands out is cut off evenly
    PAD = "pad"  # scaled until it lies within the video; the rest is black


class InputImage(_Frozen):
    """The image that a video starts from, pinned to the bytes it had when the request was accepted."""

    sha256: str  # of the file's bytes, hex
    fit: Fit = Fit.STRETCH


class RenderSpec(_Frozen):
    """One prompt of a request with nothing left to decide: two runs of one spec give the same frames.

    Sizes are pixels, already snapped to the recipe's divisor; `num_frames` is the count that is generated. The LoRAs of
    one expert act in their order here. `shift` None is the base checkpoint's own.
    """

    model: str  # the id of its card
    recipe: Recipe
    speed: Speed = Speed.EXACT
    step_cache: float | None = None  # of `turbo`: below which relative change a pass reuses the one before; None: never
    sampler: Sampler = Sampler.UNIPC
    shift: float | None = None
    sampler_assumed: bool = False  # no metadata told which scheduler the previews had
    trained_with: str | None = None  # version of AI Toolkit, from the files' metadata
    strict: bool = True  # every tensor of every LoRA has its place
    warnings: tuple[str, ...] = ()  # what the client should look at; the result repeats them
    loras: tuple[LoraFile, ...]  # as the request names them
    draft: tuple[LoraFile, ...] = ()  # the server's few-step LoRAs, of the recipe `draft`; they act before the others
    prompt: str  # trigger word in place
    trigger_word: str | None = None
    negative_prompt: str
    image: InputImage | None = None
    width: int
    height: int
    num_frames: int
    fps: int
    sample_steps: int
    guidance_scale: float
    seed: int
    output_format: OutputFormat
    previews: bool = False  # whether its latents are shown while it is made; the frames are the same

    @property
    def acting(self) -> tuple[LoraFile, ...]:
        """Return all LoRAs that act, in their order: those of a draft, then the request's."""
        return (*self.draft, *self.loras)

    def loras_for(self, expert: Expert) -> tuple[LoraFile, ...]:
        """Return the LoRAs of that expert in their order; none if the expert runs as the base model."""
        return tuple(lora for lora in self.acting if lora.expert is expert)

    @property
    def pair_key(self) -> str:
        """Routing key of this render's LoRA pair, a draft's LoRAs included; see `pair_key`."""
        return pair_key(self.acting)


def pair_key(loras: Iterable[LoraFile]) -> str:
    """Return a hash of the files' contents and sides (16 hex digits).

    The order of the LoRAs of one side matters, because a sum of floats depends on its order. The order of the sides
    does not matter. Multipliers are left out, because a new scale needs no reload. Names are left out, because an
    overwritten file is another LoRA, and a copy under another name is the same one.
    """
    by_side = sorted(loras, key=lambda lora: lora.expert.value)  # stable: keeps the order within a side
    parts = [f"{lora.expert.value}:{lora.content}" for lora in by_side]
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:16]
