"""What a render will cost: seconds of one replica, from its size and from what renders like it took before."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from serve_app.jobs.costs import CostKey, MeasuredCost
from serve_app.jobs.spec import RenderSpec
from serve_app.loras.architecture import WanArchitecture
from serve_app.settings import Profile

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
