from collections.abc import Mapping

import pytest

from serve_app.loras.formats.changes import Layout, LoraContents
from serve_app.loras.sides import likely_side, other_base_model, pair_warnings, side_warnings
from serve_app.spec import Expert

PLAIN = LoraContents(Layout.AI_TOOLKIT, {None: ()}, ())
COMBINED = LoraContents(Layout.AI_TOOLKIT, {Expert.HIGH: (), Expert.LOW: ()}, ())


@pytest.mark.parametrize(
    "name",
    [
        "my_lora_000001000_{}_noise.safetensors",
        "my_lora_{}noise.safetensors",
        "Wan2.2-T2V-A14B-{}-4steps-rank64.safetensors",
        "MyLora{}Noise_v2.safetensors",
        "wan22-{}-e20.safetensors",
        "{}.safetensors",
        "lora ({}).safetensors",
    ],
)
@pytest.mark.parametrize(
    ("side", "words"), [(Expert.HIGH, ("high", "High", "HIGH")), (Expert.LOW, ("low", "Low", "LOW"))]
)
def test_names_that_tell_the_side(name: str, side: Expert, words: tuple[str, ...]) -> None:
    for word in words:
        if name == "MyLora{}Noise_v2.safetensors" and word != word.capitalize():
            continue
        assert likely_side(name.format(word), {}) is side


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("Wan22-H-e8.safetensors", Expert.HIGH),
        ("wan22_style_L.safetensors", Expert.LOW),
        ("low_poly_high_noise.safetensors", Expert.HIGH),
        ("high_fashion_low.safetensors", Expert.LOW),
        ("HIGHNOISE.safetensors", Expert.HIGH),
        ("wan22_high5000.safetensors", Expert.HIGH),
    ],
)
def test_the_strongest_hint_decides(name: str, side: Expert) -> None:
    assert likely_side(name, {}) is side


@pytest.mark.parametrize(
    "name",
    [
        "highres.safetensors",
        "high_resolution.safetensors",
        "HighRes.safetensors",
        "slow_motion.safetensors",
        "yellow.safetensors",
        "flow.safetensors",
        "Flow-Match.safetensors",
        "glowing_highland.safetensors",
        "low_poly.safetensors",
        "low-rank64.safetensors",
        "yellownoise.safetensors",
        "low-light.safetensors",
        "high_noise_and_low_noise.safetensors",
        "high_low.safetensors",
        "l.safetensors",
        "hl.safetensors",
        "",
    ],
)
def test_names_that_tell_nothing_or_both(name: str) -> None:
    assert likely_side(name, {}) is None


def test_names_in_the_metadata_count_where_the_file_s_own_tells_nothing() -> None:
    assert likely_side("x", {"ss_output_name": "a_low_noise"}) is Expert.LOW
    assert likely_side("x", {"name": "a_high_noise"}) is Expert.HIGH
    assert likely_side("x_high", {"name": "a_low_noise"}) is Expert.HIGH
    assert likely_side("x", {"name": "a" * 10_000_000}) is None


@pytest.mark.parametrize(
    ("metadata", "model"),
    [
        ({}, None),
        ({"ss_base_model_version": "wan_2.2_14b"}, None),
        ({"ss_base_model_version": "wan"}, None),
        ({"ss_base_model_version": "wan_2.1"}, "Wan 2.1"),
        ({"ss_base_model_version": "wan21"}, "Wan 2.1"),
        ({"ss_base_model_version": "wan_2.2_14b_i2v"}, "Wan I2V (image to video)"),
        ({"ss_base_model_version": "wan_2.2_5b"}, "Wan 2.2 TI2V 5B"),
        ({"modelspec.architecture": "wan_2.2_14b_i2v"}, "Wan I2V (image to video)"),
        ({"modelspec.architecture": "wan2.1/lora"}, None),  # musubi-tuner writes it for every Wan
        ({"modelspec.architecture": "wan2.2/lora"}, None),
    ],
)
def test_another_base_model_in_the_metadata(metadata: Mapping[str, str], model: str | None) -> None:
    assert other_base_model(metadata) == model
    warnings = side_warnings(Expert.HIGH, "x", metadata, PLAIN)
    assert [model in warning for warning in warnings if model] == [True] * len(warnings)
    assert bool(warnings) == bool(model)


def test_a_file_on_the_side_that_its_name_speaks_against() -> None:
    (warning,) = side_warnings(Expert.HIGH, "a_low_noise.safetensors", {}, PLAIN)
    assert "looks like a LoRA for the low noise expert and is used for the high noise one" in warning
    assert side_warnings(Expert.LOW, "a_low_noise.safetensors", {}, PLAIN) == []
    assert side_warnings(Expert.HIGH, "a_low_noise.safetensors", {}, COMBINED) == []


def test_tensors_that_are_left_out_are_counted() -> None:
    contents = LoraContents(Layout.AI_TOOLKIT, {None: ()}, ("x.alpha", "y.alpha"))
    (warning,) = side_warnings(Expert.HIGH, "a", {}, contents)
    assert "2 tensors have no place" in warning
    assert "x.alpha" in warning


def test_one_file_for_both_experts() -> None:
    assert pair_warnings([(Expert.HIGH, "a"), (Expert.LOW, "b"), (Expert.LOW, "b")]) == []
    assert "both experts" in pair_warnings([(Expert.HIGH, "a"), (Expert.LOW, "a")])[0]
