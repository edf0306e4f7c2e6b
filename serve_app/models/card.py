"""Model cards: `configs/models/<id>.yaml`, one file per model that the service can run."""

from importlib import resources

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serve_app.errors import ConfigurationInvalid
from serve_app.spec import Recipe


class ModelCard(BaseModel):
    """What is known about a model without loading it. Sizes are pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    title: str
    pipeline: str
    base_model: str
    transformer_model: str
    requires_control_image: bool
    is_video_model: bool
    resolution_divisor: int = Field(ge=1)
    preview_resolution_divisor: int = Field(ge=1)
    frame_divisor: int = Field(ge=1)
    default_width: int
    default_height: int
    default_steps: int
    default_guidance_scale: float
    default_seed: int
    default_num_frames: int
    default_fps: int
    architecture: dict[str, int | bool | list[int]]

    def snap(self, pixels: int, recipe: Recipe) -> int:
        """The largest multiple of the recipe's divisor that is not above `pixels`."""
        divisor = self.preview_resolution_divisor if recipe is Recipe.PREVIEW else self.resolution_divisor
        return pixels // divisor * divisor

    def round_frames(self, frames: int) -> int:
        """The frame count that the pipeline generates when asked for `frames`: n // 4 * 4 + 1 for Wan's VAE.

        Counts that already have that form are kept, as in `diffusers.WanPipeline.__call__`.
        """
        return frames // self.frame_divisor * self.frame_divisor + 1


def load_card(model: str) -> ModelCard:
    """Read the card of `model`.

    Raises:
        ConfigurationInvalid: no such card, or it is not a valid one.
    """
    folder = resources.files("configs") / "models"
    known = sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    if model not in known:
        raise ConfigurationInvalid(f"model '{model}' has no card under configs/models; there are: {', '.join(known)}")
    try:
        return ModelCard.model_validate(yaml.safe_load((folder / f"{model}.yaml").read_text()))
    except (ValidationError, yaml.YAMLError) as error:
        raise ConfigurationInvalid(f"configs/models/{model}.yaml is not a valid model card: {error}") from error
