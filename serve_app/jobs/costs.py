"""What renders are alike in cost, and what such a render was measured to cost."""

import math
from dataclasses import dataclass

from serve_app.jobs.spec import Recipe, RenderSpec

_PATCH_PIXELS = 16  # a token covers 16x16 pixels of one latent frame: 8 by the VAE, 2 by the patch embedding
_FRAMES_PER_LATENT = 4
_SIZE_STEP = 1.05  # sizes whose token counts differ by less than this share what was measured


@dataclass(frozen=True, slots=True)
class CostKey:
    """Renders that cost alike, per step and beside the steps."""

    recipe: Recipe
    guided: bool  # with guidance, a step runs the expert twice
    size_class: int  # logarithm of the token count

    @classmethod
    def of(cls, spec: RenderSpec) -> "CostKey":
        """The key of a render."""
        return cls(spec.recipe, spec.guidance_scale > 1, round(math.log(token_count(spec), _SIZE_STEP)))

    @property
    def tokens(self) -> float:
        """Token count in the middle of the class."""
        return float(_SIZE_STEP**self.size_class)

    @property
    def passes(self) -> int:
        """Passes of an expert in one step."""
        return 2 if self.guided else 1


@dataclass(frozen=True, slots=True)
class MeasuredCost:
    """Seconds of one denoising step, and of everything else that a replica does for a render before it is free."""

    step_s: float
    other_s: float


def token_count(spec: RenderSpec) -> int:
    """Tokens of the render's video: latent frames x height/16 x width/16."""
    latent_frames = (spec.num_frames - 1) // _FRAMES_PER_LATENT + 1
    return max(1, latent_frames * (spec.height // _PATCH_PIXELS) * (spec.width // _PATCH_PIXELS))
