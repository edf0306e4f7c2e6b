from dataclasses import replace

import pytest

from serve_app.loras.formats import Layout, LoraContents, Provenance
from serve_app.loras.sides import likely_side, pair_warnings, side_warnings
from serve_app.spec import Expert

PLAIN = LoraContents(Layout.AI_TOOLKIT, {None: ()}, (), Provenance())
COMBINED = LoraContents(Layout.AI_TOOLKIT, {Expert.HIGH: (), Expert.LOW: ()}, (), Provenance())


def called(*names: str) -> LoraContents:
    """A file whose metadata gives the training these names."""
    return replace(PLAIN, provenance=Provenance(names=names))


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
        assert likely_side(name.format(word), PLAIN) is side


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
    assert likely_side(name, PLAIN) is side


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
    assert likely_side(name, PLAIN) is None


def test_names_in_the_metadata_count_where_the_file_s_own_tells_nothing() -> None:
    assert likely_side("x", called("a_low_noise")) is Expert.LOW
    assert likely_side("x", called("x", "a_high_noise")) is Expert.HIGH
    assert likely_side("x_high", called("a_low_noise")) is Expert.HIGH
    assert likely_side("x", called("x")) is None


def test_another_base_model_in_the_metadata() -> None:
    (warning,) = side_warnings(Expert.HIGH, "x", replace(PLAIN, provenance=Provenance(other_base="Wan 2.1")))
    assert "names another base model in its metadata: Wan 2.1" in warning
    assert side_warnings(Expert.HIGH, "x", PLAIN) == []


def test_a_file_on_the_side_that_its_name_speaks_against() -> None:
    (warning,) = side_warnings(Expert.HIGH, "a_low_noise.safetensors", PLAIN)
    assert "looks like a LoRA for the low noise expert and is used for the high noise one" in warning
    assert side_warnings(Expert.LOW, "a_low_noise.safetensors", PLAIN) == []
    assert side_warnings(Expert.HIGH, "a_low_noise.safetensors", COMBINED) == []


def test_tensors_that_are_left_out_are_counted() -> None:
    (warning,) = side_warnings(Expert.HIGH, "a", replace(PLAIN, left_out=("x.alpha", "y.alpha")))
    assert "2 tensors have no place" in warning
    assert "x.alpha" in warning


def test_one_file_for_both_experts() -> None:
    assert pair_warnings([(Expert.HIGH, "a"), (Expert.LOW, "b"), (Expert.LOW, "b")]) == []
    assert "both experts" in pair_warnings([(Expert.HIGH, "a"), (Expert.LOW, "a")])[0]
