"""What a render is predicted to cost, before and after anything was measured."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.costs import CostKey, CostModel, MeasuredCost, most_similar
from serve_app.models.card import load_card
from serve_app.settings import Profile
from serve_app.spec import Recipe, RenderSpec
from tests.fixtures.specs import make_spec

CARD = load_card("wan22_14b_t2v")


def model(measured: dict[CostKey, MeasuredCost] | None = None, profile: Profile = Profile.GPU) -> CostModel:
    return CostModel(CARD, profile, measured or {})


def test_an_expert_of_a14b_has_14_billion_parameters() -> None:
    assert CARD.architecture.linear_parameters == pytest.approx(14.3e9, rel=0.01)


@pytest.mark.parametrize(("width", "height", "petaflops"), [(832, 480, 0.73), (1024, 1024, 2.95)])
def test_the_flops_of_a_pass_are_those_of_the_formula(width: int, height: int, petaflops: float) -> None:
    tokens = CARD.token_count(width=width, height=height, num_frames=41)
    flops = CARD.architecture.forward_flops(tokens)
    assert flops == pytest.approx(petaflops * 1e15, rel=0.01)
    assert flops == pytest.approx(2 * 14.3e9 * tokens + 40 * 4 * tokens**2 * 5120, rel=0.01)


def test_before_anything_was_measured_a_gpu_is_taken_for_an_h200() -> None:
    spec = make_spec(width=832, height=480, num_frames=41, sample_steps=20)
    assert model().predict(spec) == pytest.approx(20 * 2.9, rel=0.1)
    assert model(profile=Profile.CPU).predict(spec) > 1000 * model().predict(spec)


def test_a_draft_costs_one_pass_a_step() -> None:
    guided = make_spec(width=832, height=480, num_frames=41, sample_steps=4)
    draft = guided.model_copy(update={"recipe": Recipe.DRAFT, "guidance_scale": 1.0})
    measured = {CostKey.of(guided, CARD): MeasuredCost(3.0, 7.0)}
    assert CostKey.of(draft, CARD) != CostKey.of(guided, CARD)
    assert model().predict(draft) < 0.6 * model().predict(guided)
    assert model(measured).predict(draft) == pytest.approx(4 * 1.5 + 7)


def test_what_was_measured_is_predicted_again() -> None:
    spec = make_spec(sample_steps=10)
    assert model({CostKey.of(spec, CARD): MeasuredCost(3.0, 7.0)}).predict(spec) == pytest.approx(37.0)


def test_a_size_between_is_predicted_from_the_nearest_measurement() -> None:
    small, large = (make_spec(width=width, height=480, num_frames=41) for width in (416, 832))
    near_large = make_spec(width=768, height=480, num_frames=41, sample_steps=1)
    known = {CostKey.of(small, CARD): MeasuredCost(1.0, 0.0), CostKey.of(large, CARD): MeasuredCost(100.0, 0.0)}
    assert 80 < model(known).predict(near_large) < 100


def test_the_same_recipe_and_guidance_are_more_alike_than_the_same_size() -> None:
    wanted = CostKey(Recipe.REFERENCE, True, 100)
    unguided, preview = CostKey(Recipe.REFERENCE, False, 100), CostKey(Recipe.PREVIEW, True, 100)
    far = CostKey(Recipe.REFERENCE, True, 150)
    assert most_similar(wanted, []) is None
    assert most_similar(wanted, [unguided]) == unguided
    assert most_similar(wanted, [unguided, preview]) == preview
    assert most_similar(wanted, [unguided, preview, far]) == far
    assert most_similar(wanted, [unguided, preview, far, wanted]) == wanted


def test_guidance_is_known_to_double_a_step() -> None:
    guided, unguided = make_spec(guidance_scale=4.0, sample_steps=10), make_spec(guidance_scale=1.0, sample_steps=10)
    known = model({CostKey.of(guided, CARD): MeasuredCost(2.0, 5.0)})
    assert known.predict(guided) == pytest.approx(25.0)
    assert known.predict(unguided) == pytest.approx(15.0)


KNOWN_SIZES: list[dict[str, Any]] = [
    {},
    {"width": 256, "height": 256, "num_frames": 17},
    {"width": 832, "height": 480, "num_frames": 41},
    {"width": 64, "height": 64, "num_frames": 5, "guidance_scale": 1.0},
]
spec_values = st.fixed_dictionaries(
    {
        "width": st.integers(4, 256).map(lambda n: 16 * n),
        "height": st.integers(4, 256).map(lambda n: 16 * n),
        "num_frames": st.integers(0, 60).map(lambda n: 4 * n + 1),
        "sample_steps": st.integers(1, 150),
        "guidance_scale": st.sampled_from([1.0, 4.0]),
    }
)
more = st.fixed_dictionaries(
    {
        "width": st.integers(0, 64).map(lambda n: 16 * n),
        "height": st.integers(0, 64).map(lambda n: 16 * n),
        "num_frames": st.integers(0, 20).map(lambda n: 4 * n),
        "sample_steps": st.integers(0, 20),
    }
)
# As one machine gives them: each size measured for itself, at what its tokens cost there.
measured_sizes = st.sets(st.sampled_from(range(len(KNOWN_SIZES)))).map(
    lambda chosen: {CostKey.of(spec, CARD): _honest(spec) for spec in (make_spec(**KNOWN_SIZES[n]) for n in chosen)}
)


def _honest(spec: RenderSpec) -> MeasuredCost:
    key = CostKey.of(spec, CARD)
    return MeasuredCost(key.passes * CARD.architecture.forward_flops(key.tokens) / 4e14, key.tokens * 1e-4)


@given(values=spec_values, more=more, known=measured_sizes, profile=st.sampled_from([Profile.GPU, Profile.CPU]))
def test_more_frames_steps_or_pixels_never_cost_less(
    values: dict[str, Any], more: dict[str, int], known: dict[CostKey, MeasuredCost], profile: Profile
) -> None:
    larger = {name: value + more.get(name, 0) for name, value in values.items()}
    predict = model(known, profile).predict
    assert 0 < predict(make_spec(**values)) <= predict(make_spec(**larger)) * (1 + 1e-9)
