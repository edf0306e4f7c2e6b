"""Model cards (YAML): VAE strides, frame rule, sizes, defaults, experts and checkpoints of a model, without loading it.

Example:
    >>> card = load_card("wan22_14b_t2v")  # configs/models/wan22_14b_t2v.yaml; or the path of a card of your own
    >>> card.snap(1000, Recipe.REFERENCE), card.round_frames(40)
    (992, 41)
    >>> card.token_count(width=832, height=480, num_frames=41)
    17160

The request's defaults, the texts of the API documentation, the cost model, the rules for LoRAs and the command line
read the card. So a new model is a card, and a class with the methods of `deployments.pipeline.Pipeline`.
"""

import json
from collections.abc import Mapping
from enum import StrEnum
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from serve_app.drafts import Draft
from serve_app.errors import ConfigurationInvalid
from serve_app.models import limits
from serve_app.models.architecture import WanArchitecture
from serve_app.settings import wrong_values
from serve_app.spec import PAIR, Expert, Recipe, Sampler

_DOTTED_NAME = r"^[\w.]+:[\w.]+$"
_SUFFIX = ".yaml"
_WITH_RULES = {recipe.rules for recipe in Recipe}  # recipes that have rules of their own


class ImageInput(StrEnum):
    """Whether a prompt has an image that the video starts from."""

    NONE = "none"
    OPTIONAL = "optional"
    REQUIRED = "required"


class ImageConditioning(StrEnum):
    """How an image that a video starts from enters a Wan model."""

    CHANNELS = "channels"  # mask and encoded image as further input channels of the experts
    FIRST_LATENT_FRAME = "first_latent_frame"  # the encoded image is the first latent frame, with timestep 0


class FrameRule(StrEnum):
    """How a frame count is rounded to whole latent frames. n: frames asked for, s: the latents' stride in frames."""

    PLUS_ONE = "n // s * s + 1"  # diffusers' WanPipeline.__call__: 40 -> 41, 6 -> 5
    WHOLE_LATENTS = "(n - 1) // s * s + 1"  # where the latents are made first: 40 -> 37, 6 -> 5

    def apply(self, frames: int, stride: int) -> int:
        """Return the frame count that is generated for `frames`. Idempotent: it does not change its own results."""
        first = frames if self is FrameRule.PLUS_ONE else frames - 1
        return first // stride * stride + 1

    def formula(self, stride: int) -> str:
        """Return the formula with the stride filled in, as in "n // 4 * 4 + 1"."""
        return self.value.replace("s", str(stride))


class Stride(NamedTuple):
    """Frames, rows and columns of pixels in one cell of the latents. The first frame has a latent frame of its own."""

    frames: PositiveInt
    rows: PositiveInt
    columns: PositiveInt


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LatentRgb(_Frozen):
    """A linear map from normalised latents to colours of -1..1, one cell to one pixel: what previews are made with."""

    factors: tuple[tuple[float, float, float], ...]  # red, green and blue of each channel
    bias: tuple[float, float, float]


class Latents(_Frozen):
    """What the VAE makes of a video."""

    channels: int = Field(ge=1)
    stride: Stride
    rgb: LatentRgb | None = None  # None: renders show no previews, unless the checkpoint brings a map of its own

    @model_validator(mode="after")
    def _a_colour_for_each_channel(self) -> Self:
        if self.rgb is not None and len(self.rgb.factors) != self.channels:
            raise ValueError(f"rgb.factors must have {self.channels} rows, one for each channel")
        return self


class Part(_Frozen):
    """The place of one component of a checkpoint: a directory or Hugging Face repository, and a folder in it."""

    checkpoint: str
    folder: str = ""  # "": at the root


class Parts(_Frozen):
    """Components that come from separate checkpoints."""

    text_encoder: Part
    tokenizer: Part
    vae: Part


class Defaults(_Frozen):
    """Values of a prompt that leaves them out. Sizes are pixels, before snapping."""

    width: int = Field(ge=limits.SIZE.least, le=limits.SIZE.most)
    height: int = Field(ge=limits.SIZE.least, le=limits.SIZE.most)
    num_frames: int = Field(ge=limits.NUM_FRAMES.least, le=limits.NUM_FRAMES.most)
    fps: int = Field(ge=limits.FPS.least, le=limits.FPS.most)
    sample_steps: int = Field(ge=limits.SAMPLE_STEPS.least, le=limits.SAMPLE_STEPS.most)
    guidance_scale: float = Field(ge=limits.GUIDANCE_SCALE.least, le=limits.GUIDANCE_SCALE.most)
    seed: int = Field(ge=0, le=limits.SEED.most)  # of the first prompt; each further one has the next


class Largest(_Frozen):
    """The largest video that the makers of a model offer. Sizes are pixels."""

    width: int
    height: int
    num_frames: int


class ModelCard(_Frozen):
    """One model. Names of checkpoints are directories or Hugging Face repositories."""

    id: str  # as clients name the model
    title: str  # as people do
    pipeline: str = Field(pattern=_DOTTED_NAME)  # module:Class, see deployments.pipeline.Pipeline
    base_model: str  # text encoder, tokenizer, VAE, and the scheduler that it ships
    transformer_model: str | None = None  # the experts; None: in the base model
    parts: Parts | None = None  # where the base model's components lie instead, if it is not one whole checkpoint
    demo: str | None = Field(None, pattern=_DOTTED_NAME)  # module:function, a serve_app.application.DemoBuilder
    demo_knows: str | None = None  # goes on after "a checkpoint, which"
    demo_draft: Draft | None = None  # what the demo's recipe `draft` is made with, in `lora_root`
    experts: tuple[Expert, ...]  # PAIR, or the only one
    image_input: ImageInput
    image_conditioning: ImageConditioning | None = None  # of a Wan model that takes an image
    latents: Latents
    frame_rule: FrameRule
    size_divisors: dict[Recipe, int]  # width and height are floored to a multiple
    defaults: Defaults
    largest: Largest | None = None  # beyond it, a request is warned of
    train_timesteps: int = Field(ge=1)  # of the noise schedule
    boundary: dict[Recipe, float] | None = None  # of a pair: from this share of the noise on, the high noise expert
    token_timesteps: bool = False  # each token has its own timestep (`expand_timesteps` of diffusers)
    ships_scheduler: bool = True  # whether the UniPC scheduler is the base checkpoint's, or made with checkpoint_shift
    checkpoint_shift: float = Field(gt=0)  # flow shift of the reference server's scheduler (UniPC)
    preview_shift: float = Field(gt=0)  # flow shift of the Euler scheduler of AI Toolkit's previews
    architecture: WanArchitecture  # of each expert

    @model_validator(mode="before")
    @classmethod
    def _architecture_from_config(cls, values: Any) -> Any:
        config = values.get("architecture") if isinstance(values, Mapping) else None
        if not isinstance(config, Mapping):
            return values
        try:
            return values | {"architecture": WanArchitecture.from_config(config, values.get("title", ""))}
        except KeyError as error:
            raise ValueError(f"architecture lacks {error}") from error

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.experts not in (PAIR, (Expert.ONLY,)):
            raise ValueError("experts must be [high, low] or [only]")
        if self.is_pair and not (self.boundary and set(self.boundary) == _WITH_RULES):
            raise ValueError("boundary must give a share of the noise for each recipe, as the model has two experts")
        if self.latents.channels != self.architecture.out_channels:
            raise ValueError("latents.channels must be the architecture's out_channels")
        _, rows, columns = self._token
        for recipe in sorted(_WITH_RULES):
            divisor = self.size_divisors.get(recipe, 0)
            if not 0 < divisor <= limits.SIZE.least or divisor % rows or divisor % columns:
                raise ValueError(
                    f"size_divisors.{recipe.value} must be a multiple of a token's {rows}x{columns} pixels, "
                    f"{limits.SIZE.least} at most"
                )
        return self

    @property
    def is_pair(self) -> bool:
        """Return whether the model has two experts, so that a LoRA must say which one it is for."""
        return self.experts == PAIR

    def snap(self, pixels: int, recipe: Recipe) -> int:
        """Return the largest multiple of the recipe's divisor that is not above `pixels`."""
        divisor = self.size_divisors[recipe.rules]
        return pixels // divisor * divisor

    def round_frames(self, frames: int) -> int:
        """Return the frame count that the pipeline generates when asked for `frames`; see `FrameRule`."""
        return self.frame_rule.apply(frames, self.latents.stride.frames)

    def size_warnings(self, *, width: int, height: int, num_frames: int) -> tuple[str, ...]:
        """Return a warning where a video is larger than any that the model's makers offer."""
        most = self.largest
        if most is None:
            return ()
        tokens = self.token_count(width=width, height=height, num_frames=num_frames)
        offered = self.token_count(width=most.width, height=most.height, num_frames=most.num_frames)
        if tokens <= offered and num_frames <= most.num_frames:
            return ()
        return (
            f"{width}x{height} with {num_frames} frames is more than the model's makers offer "
            f"({most.width}x{most.height} with {most.num_frames} frames): "
            "it may repeat or fall apart, and may not fit into memory",
        )

    def default_shift(self, sampler: Sampler) -> float:
        """Return the flow shift of a render that gives none."""
        return self.checkpoint_shift if sampler is Sampler.UNIPC else self.preview_shift

    def boundary_ratio(self, recipe: Recipe) -> float | None:
        """Return the share of the noise from which on the high noise expert acts; None for one expert."""
        return self.boundary[recipe.rules] if self.is_pair and self.boundary else None

    def token_count(self, *, width: int, height: int, num_frames: int) -> int:
        """Return the number of tokens that each expert processes for a video of this size in pixels and frames.

        Wan 2.2 A14B: latent frames x height/16 x width/16, as 8 pixels are one latent and 2x2 latents one token. TI2V
        5B: latent frames x height/32 x width/32.
        """
        frames, rows, columns = self._token
        latent_frames = (num_frames - 1) // self.latents.stride.frames + 1
        return max(1, latent_frames // frames * (height // rows) * (width // columns))

    @property
    def _token(self) -> tuple[int, int, int]:
        """Return the latent frames, rows and columns of pixels in one token."""
        frames, rows, columns = self.architecture.patch_size
        return frames, rows * self.latents.stride.rows, columns * self.latents.stride.columns

    def of_checkpoint(self, transformer_model: str) -> Self:
        """Return this card with the architecture of the experts in `transformer_model`.

        The config.json of a directory replaces the architecture of the card. A repository on the Hub is not read.

        Raises:
            ConfigurationInvalid: an absolute path that holds no such checkpoint, or one of other latents.
        """
        config = Path(transformer_model, "transformer", "config.json")
        if not config.is_file():
            if Path(transformer_model).is_absolute():
                raise ConfigurationInvalid(f"transformer_model: {config} does not exist")
            return self
        try:
            return type(self).model_validate(dict(self) | {"architecture": json.loads(config.read_text())})
        except json.JSONDecodeError as error:
            raise ConfigurationInvalid(f"transformer_model: {config} is not JSON: {error}") from error
        except ValidationError as error:
            problem = wrong_values(error, "config")
            raise ConfigurationInvalid(f"transformer_model: {config} is not one of {self.title}: {problem}") from error


def load_card(model: str) -> ModelCard:
    """Read the card of `model`: an id under configs/models, or the path of a card file (`*.yaml`).

    Raises:
        ConfigurationInvalid: there is no such card, or it is not a valid one; the message says what is wrong.
    """
    try:
        text = Path(model).read_text() if model.endswith(_SUFFIX) and Path(model).is_file() else _own_card(model)
        return _parsed(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationInvalid(f"model: the card of '{model}' is not YAML: {error}") from error
    except OSError as error:
        raise ConfigurationInvalid(f"model: the card of '{model}' cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise ConfigurationInvalid(f"model: the card of '{model}': {wrong_values(error, 'card')}") from error


@lru_cache(64)
def _parsed(text: str) -> ModelCard:
    """Parse the YAML text of a card. Cached: cards are immutable, and parsing takes milliseconds."""
    return ModelCard.model_validate(yaml.safe_load(text))


def _own_card(model: str) -> str:
    folder = resources.files("configs") / "models"
    known = sorted(entry.name.removesuffix(_SUFFIX) for entry in folder.iterdir() if entry.name.endswith(_SUFFIX))
    if model not in known:
        raise ConfigurationInvalid(
            f"model: '{model}' has no card under configs/models, and is no card file; there are: {', '.join(known)}"
        )
    return (folder / f"{model}{_SUFFIX}").read_text()
