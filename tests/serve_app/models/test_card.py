"""Model cards: the reference's rules for sizes, frames and defaults, and a card of one's own."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from serve_app.errors import ConfigurationInvalid
from serve_app.models.card import FrameRule, load_card
from serve_app.spec import PAIR, Expert, Recipe, Sampler
from tests.lantern import CARD as LANTERN_FILE
from tests.serve_app.loras.files import CONFIG, TINY

CARD = load_card("wan22_14b_t2v")
LANTERN = load_card(str(LANTERN_FILE))  # a card file outside configs/models


def test_the_card_says_what_the_reference_does() -> None:
    assert CARD.base_model == "Wan-AI/Wan2.2-T2V-A14B-Diffusers"
    assert CARD.transformer_model == "ai-toolkit/Wan2.2-T2V-A14B-Diffusers-bf16"
    assert (CARD.defaults.sample_steps, CARD.defaults.guidance_scale, CARD.defaults.seed) == (25, 4.0, 42)
    assert (CARD.defaults.num_frames, CARD.defaults.fps) == (41, 16)


def test_an_unknown_model_names_those_that_there_are() -> None:
    with pytest.raises(ConfigurationInvalid, match="wan22_14b_t2v"):
        load_card("wan99")


@pytest.mark.parametrize(
    ("model", "width", "height", "num_frames", "warned"),
    [
        ("wan22_14b_t2v", 1280, 720, 81, False),
        ("wan22_14b_t2v", 720, 1280, 81, False),
        ("wan22_14b_t2v", 832, 480, 85, True),
        ("wan22_14b_t2v", 1920, 1088, 41, True),
        ("wan22_14b_i2v", 1280, 720, 121, True),
        ("wan22_5b", 1280, 704, 121, False),
        ("wan22_5b", 1280, 704, 125, True),
    ],
)
def test_who_asks_for_more_than_the_makers_offer_is_warned(
    model: str, width: int, height: int, num_frames: int, warned: bool
) -> None:
    warnings = load_card(model).size_warnings(width=width, height=height, num_frames=num_frames)
    assert [f"{width}x{height} with {num_frames} frames" in warning for warning in warnings] == [True] * warned


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


def test_a_card_file_of_ones_own_describes_a_model_of_other_rules() -> None:
    assert (CARD.experts, LANTERN.experts) == (PAIR, (Expert.ONLY,))
    assert (CARD.is_pair, LANTERN.is_pair) == (True, False)
    assert [LANTERN.round_frames(frames) for frames in (1, 8, 9, 24, 25)] == [1, 1, 9, 17, 25]
    assert LANTERN.snap(100, Recipe.REFERENCE) == 96
    assert [LANTERN.default_shift(sampler) for sampler in Sampler] == [7.0, 2.0]
    assert LANTERN.architecture.title == "Lantern 1B"


@pytest.mark.parametrize(("asked", "generated"), [(40, 37), (6, 5), (42, 41), (41, 41), (1, 1)])
def test_the_frame_counts_of_models_whose_latents_are_made_first(asked: int, generated: int) -> None:
    assert FrameRule.WHOLE_LATENTS.apply(asked, 4) == generated


def test_tokens_follow_the_strides_of_vae_and_patches() -> None:
    assert CARD.token_count(width=832, height=480, num_frames=41) == 11 * 52 * 30
    assert LANTERN.token_count(width=96, height=48, num_frames=17) == 3 * 6 * 3


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"experts": ["high"]}, "experts must be"),
        ({"experts": ["low", "high"]}, "experts must be"),
        ({"latents": {"channels": 16, "stride": [8, 16, 16]}}, "out_channels"),
        ({"latents": {"channels": 24, "stride": [8, 0, 16]}}, "stride"),
        ({"size_divisors": {"reference": 40, "preview": 16}}, "size_divisors.reference must be a multiple of"),
        ({"size_divisors": {"reference": 128, "preview": 16}}, "64 at most"),
        ({"size_divisors": {"reference": 48}}, "size_divisors.preview"),
        ({"pipeline": "tests.lantern.pipeline"}, "pipeline"),
        ({"frame_rule": "n"}, "frame_rule"),
        ({"architecture": {"num_layers": 1}}, "architecture lacks 'patch_size'"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_card_that_contradicts_itself_says_where(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(LANTERN_FILE.read_text()) | changes))
    with pytest.raises(ConfigurationInvalid, match=re.escape(problem)):
        load_card(str(path))


@pytest.mark.parametrize("text", ["", "- a list", "{unclosed"])
def test_a_file_that_is_no_card_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationInvalid, match="model: the card of"):
        load_card(str(path))


def test_the_architecture_of_a_checkpoint_on_disk_counts(tmp_path: Path) -> None:
    config = tmp_path / "transformer" / "config.json"
    config.parent.mkdir()
    config.write_text(json.dumps(CONFIG))
    assert CARD.of_checkpoint(str(tmp_path)).architecture == TINY
    with pytest.raises(ConfigurationInvalid, match=r"not one of Lantern 1B: .*out_channels"):
        LANTERN.of_checkpoint(str(tmp_path))
