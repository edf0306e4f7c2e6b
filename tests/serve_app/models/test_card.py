import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.errors import ConfigurationInvalid
from serve_app.models.card import load_card
from serve_app.spec import Recipe

CARD = load_card("wan22_14b_t2v")


def test_the_card_says_what_the_reference_does() -> None:
    assert CARD.base_model == "Wan-AI/Wan2.2-T2V-A14B-Diffusers"
    assert CARD.transformer_model == "ai-toolkit/Wan2.2-T2V-A14B-Diffusers-bf16"
    assert (CARD.defaults.sample_steps, CARD.defaults.guidance_scale, CARD.defaults.seed) == (25, 4.0, 42)
    assert (CARD.defaults.num_frames, CARD.defaults.fps) == (41, 16)


def test_an_unknown_model_names_those_that_there_are() -> None:
    with pytest.raises(ConfigurationInvalid, match="wan22_14b_t2v"):
        load_card("wan99")


@pytest.mark.parametrize(("recipe", "divisor"), [(Recipe.REFERENCE, 32), (Recipe.PREVIEW, 16)])
@given(pixels=st.integers(64, 4096))
def test_sizes_floor_to_the_recipes_divisor(recipe: Recipe, divisor: int, pixels: int) -> None:
    snapped = CARD.snap(pixels, recipe)
    assert snapped % divisor == 0
    assert 0 <= pixels - snapped < divisor
    assert CARD.snap(snapped, recipe) == snapped


@given(st.integers(1, 1000))
def test_frames_round_to_whole_latent_frames(frames: int) -> None:
    rounded = CARD.round_frames(frames)
    assert rounded % 4 == 1
    assert abs(rounded - frames) <= 3
    assert CARD.round_frames(rounded) == rounded


@pytest.mark.parametrize(("asked", "generated"), [(1, 1), (5, 5), (6, 5), (40, 41), (41, 41), (42, 41)])
def test_frame_counts_of_the_facts(asked: int, generated: int) -> None:
    assert CARD.round_frames(asked) == generated
