"""Cost model: predict the seconds that a render takes one replica, from measurements of similar renders.

Renders with the same key share measurements; for other keys they are scaled:

    model = CostModel(card, Profile.GPU, measured={CostKey.of(spec, card): MeasuredCost(step_s=2.9, other_s=2.0)})
    model.predict(larger_spec)  # scaled by FLOPs from the most similar measurement
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from serve_app.models.card import ModelCard
from serve_app.settings import Profile
from serve_app.spec import Recipe, RenderSpec, Speed

_SIZE_STEP = 1.05  # sizes whose token counts differ by less than this factor share measurements


@dataclass(frozen=True, slots=True)
class CostKey:
    """Renders with the same cost, for a step and for everything else."""

    recipe: Recipe
    guided: bool  # with guidance, a step runs the expert twice
    size_class: int  # logarithm of the token count
    speed: Speed = Speed.EXACT

    @classmethod
    def of(cls, spec: RenderSpec, card: ModelCard) -> Self:
        """Return the key of a render of that model."""
        tokens = card.token_count(width=spec.width, height=spec.height, num_frames=spec.num_frames)
        return cls(spec.recipe, spec.guidance_scale > 1, round(math.log(tokens, _SIZE_STEP)), spec.speed)

    @property
    def tokens(self) -> float:
        """Return the token count in the middle of the class."""
        return float(_SIZE_STEP**self.size_class)

    @property
    def passes(self) -> int:
        """Return how often an expert runs in one step."""
        return 2 if self.guided else 1


@dataclass(frozen=True, slots=True)
class MeasuredCost:
    """Seconds of one denoising step, and of everything else that a replica does for a render before it is free."""

    step_s: float
    other_s: float


# Before anything was measured. GPU: an H200 runs 832x480x41 at 1.46 PFLOP a step in 2.9 s; docs/performance.md.
_PRIOR_FLOPS_PER_S = {Profile.GPU: 5e14, Profile.CPU: 5e10}
_PRIOR_PASS_S = 0.005  # launching one pass of an expert, however small
_PRIOR_OTHER_S = 0.2
_PRIOR_S_PER_TOKEN = {Profile.GPU: 8e-5, Profile.CPU: 1e-3}  # decoding


@dataclass(frozen=True, slots=True)
class CostModel:
    """Predicts costs: scaled by FLOPs from the most similar measurement, or from a prior if there is none."""

    card: ModelCard
    profile: Profile
    measured: Mapping[CostKey, MeasuredCost]

    def predict(self, spec: RenderSpec) -> float:
        """Return the seconds from the reservation of a replica until it is free again."""
        cost = self._cost(CostKey.of(spec, self.card))
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
        return key.passes * self.card.architecture.forward_flops(key.tokens)


def most_similar(key: CostKey, known: Iterable[CostKey]) -> CostKey | None:
    """Return the known key nearest in size, with the same speed, recipe and guidance if possible; None if none."""

    def distance(other: CostKey) -> tuple[bool, bool, bool, int, int]:
        return (
            other.guided is not key.guided,
            other.speed is not key.speed,
            other.recipe is not key.recipe,
            abs(other.size_class - key.size_class),
            other.size_class,
        )

    return min(known, key=distance, default=None)
