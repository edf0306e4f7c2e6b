"""Which file of a repository is taken for an expert, and when the choice is refused."""

import pytest

from serve_app.errors import LoraPathRefused
from serve_app.loras.sources.hub import choose
from serve_app.spec import Expert


@pytest.mark.parametrize(
    ("high", "low"),
    [
        ("a_high_noise.safetensors", "a_low_noise.safetensors"),
        ("wan22-HIGH.safetensors", "wan22-LOW.safetensors"),
        ("MyStyleHighNoise.safetensors", "MyStyleLowNoise.safetensors"),
        ("highnoise_v1.safetensors", "lownoise_v1.safetensors"),
        ("high/flow.safetensors", "low/flow.safetensors"),
        ("high_and_low/x_high.safetensors", "high_and_low/x_low.safetensors"),
        ("high2.SAFETENSORS", "low2.SAFETENSORS"),
        ("low_poly_high_noise.safetensors", "low_poly_low_noise.safetensors"),
        ("hero_H.safetensors", "hero_L.safetensors"),
        ("HN/hero.safetensors", "LN/hero.safetensors"),
    ],
)
def test_the_name_says_the_side(high: str, low: str) -> None:
    files = [low, "README.md", high, "highres.safetensors", "slow.safetensors", "high_low.safetensors"]
    assert choose(files, Expert.HIGH, "x") == high
    assert choose(files, Expert.LOW, "x") == low


def test_the_only_file_is_taken_whatever_its_name() -> None:
    assert choose(["a.bin", "low.safetensors"], Expert.HIGH, "x") == "low.safetensors"


@pytest.mark.parametrize(
    ("files", "expert"),
    [
        (["a_high.safetensors", "b_high.safetensors"], Expert.HIGH),
        (["a_high.safetensors", "a_low.safetensors"], None),
        (["a.safetensors", "b.safetensors"], Expert.LOW),
        (["high_noise.safetensors", "low_poly_style.safetensors"], Expert.LOW),
        (["high_low.safetensors", "low_and_high.safetensors"], Expert.HIGH),
    ],
)
def test_what_cannot_be_told_apart_is_refused_naming_the_files(files: list[str], expert: Expert | None) -> None:
    with pytest.raises(LoraPathRefused) as caught:
        choose(files, expert, "hf://me/pair")
    assert caught.value.details == {"path": "hf://me/pair", "candidates": files}


def test_twenty_files_are_named_at_most() -> None:
    with pytest.raises(LoraPathRefused, match="99 files") as caught:
        choose([f"{index:02}.safetensors" for index in range(99)], None, "x")
    assert len(caught.value.details["candidates"]) == 20
