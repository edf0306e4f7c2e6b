"""What a render costs in seconds of one replica: what was measured of renders like it, and what follows for others."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from serve_app.models.architecture import WanArchitecture
from serve_app.settings import Profile
from serve_app.spec import Recipe, RenderSpec

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


# Before anything was measured. GPU: an H200 runs 832x480x41 at 1.46 PFLOP a step in 2.9 s; docs/performance.md.
_PRIOR_FLOPS_PER_S = {Profile.GPU: 5e14, Profile.CPU: 5e10}
_PRIOR_PASS_S = 0.005  # launching one pass of an expert, however small
_PRIOR_OTHER_S = 0.2
_PRIOR_S_PER_TOKEN = {Profile.GPU: 8e-5, Profile.CPU: 1e-3}  # decoding


@dataclass(frozen=True, slots=True)
class CostModel:
    """Predicts from the measurements there are; scales by FLOPs from the most similar one, or from a prior."""

    architecture: WanArchitecture
    profile: Profile
    measured: Mapping[CostKey, MeasuredCost]

    def predict(self, spec: RenderSpec) -> float:
        """Seconds of one replica, from its being won to its being free."""
        cost = self._cost(CostKey.of(spec))
        return spec.sample_steps * cost.step_s + cost.other_s

    def _cost(self, key: CostKey) -> MeasuredCost:
        similar = most_similar(key, self.measured)
        if similar is None:
            return self._prior(key)
        cost = self.measured[similar]
        scale = self._step_flops(key) / self._step_flops(similar)
        return MeasuredCost(cost.step_s * scale, cost.other_s * key.tokens / similar.tokens)

    def _prior(self, key: CostKey) -> MeasuredCost:
        step_s = self._step_flops(key) / _PRIOR_FLOPS_PER_S[self.profile] + key.passes * _PRIOR_PASS_S
        return MeasuredCost(step_s, _PRIOR_OTHER_S + key.tokens * _PRIOR_S_PER_TOKEN[self.profile])

    def _step_flops(self, key: CostKey) -> float:
        return key.passes * forward_flops(self.architecture, key.tokens)


def most_similar(key: CostKey, known: Iterable[CostKey]) -> CostKey | None:
    """The nearest in size, of the same recipe and guidance where there is one; None where nothing is known."""

    def distance(other: CostKey) -> tuple[bool, bool, int, int]:
        return (
            other.guided is not key.guided,
            other.recipe is not key.recipe,
            abs(other.size_class - key.size_class),
            other.size_class,
        )

    return min(known, key=distance, default=None)


def forward_flops(architecture: WanArchitecture, tokens: float) -> float:
    """FLOPs of one pass of one expert: 2 x parameters x tokens, and 4 x tokens^2 x width of each layer's attention.

    For Wan 2.2 A14B that is 2 x 14.3e9 x L + 40 x 4 x L^2 x 5120.
    """
    width = architecture.dim
    attention = 4 * architecture.num_layers * tokens**2 * width
    return 2 * parameter_count(architecture) * tokens + attention


def parameter_count(architecture: WanArchitecture) -> int:
    """Parameters of one expert's linear layers: 8 d^2 + 2 d f a block, and the text and time embeddings."""
    width = architecture.dim
    blocks = architecture.num_layers * (8 * width**2 + 2 * width * architecture.ffn_dim)
    text = architecture.text_dim * width + width**2
    time = architecture.freq_dim * width + 7 * width**2
    return blocks + text + time
