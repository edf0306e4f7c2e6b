"""Which files of a folder are the halves of one pair."""

import pytest

from serve_app.loras.pairs import Half, Pair, pairs
from serve_app.loras.sides import side_of, without_side


def found(*names: str, steps: dict[str, int] | None = None) -> list[Pair]:
    paths = [f"{name}.safetensors" for name in names]
    return pairs(Half(path, side_of(path), (steps or {}).get(path)) for path in paths)


@pytest.mark.parametrize(
    ("path", "rest"),
    [
        ("job/hero_000000500_high_noise.safetensors", "job/hero_000000500.safetensors"),
        ("hero_HighNoise_v2.safetensors", "hero_v2.safetensors"),
        ("low_noise/hero.safetensors", "hero.safetensors"),
        ("low_poly_high_noise.safetensors", "low_poly.safetensors"),
        ("wan22_HN-final.safetensors", "wan22_final.safetensors"),
        ("hero.safetensors", "hero.safetensors"),
        ("noise_art_high.safetensors", "noise_art.safetensors"),
    ],
)
def test_a_name_without_its_side(path: str, rest: str) -> None:
    assert without_side(path) == rest


def test_checkpoints_of_one_training_are_pairs_by_step() -> None:
    names = [f"job/hero_{step:09d}_{side}_noise" for step in (500, 1000) for side in ("high", "low")]
    assert found(*names, "job/hero_high_noise", "job/hero_low_noise") == [
        Pair("job/hero", 500, f"{names[0]}.safetensors", f"{names[1]}.safetensors"),
        Pair("job/hero", 1000, f"{names[2]}.safetensors", f"{names[3]}.safetensors"),
        Pair("job/hero", None, "job/hero_high_noise.safetensors", "job/hero_low_noise.safetensors"),
    ]


def test_metadata_tells_the_step_of_a_file_without_one_in_its_name() -> None:
    (pair,) = found("hero_H", "hero_L", steps={"hero_H.safetensors": 2000, "hero_L.safetensors": 2000})
    assert (pair.name, pair.step) == ("hero", 2000)


def test_a_number_that_is_no_step_stays_in_the_name() -> None:
    (pair,) = found("hero_42_high_noise", "hero_42_low_noise", steps={"hero_42_high_noise.safetensors": 100})
    assert (pair.name, pair.step) == ("hero_42", 100)


def test_halves_in_folders_of_their_side_are_a_pair() -> None:
    (pair,) = found("high_noise/hero", "low_noise/hero")
    assert (pair.high, pair.low) == ("high_noise/hero.safetensors", "low_noise/hero.safetensors")


def test_one_half_stands_alone() -> None:
    assert found("hero_high_noise") == [Pair("hero", None, "hero_high_noise.safetensors", None)]


def test_where_two_files_could_be_the_half_nobody_guesses() -> None:
    made = found("hero_high_noise", "hero_HighNoise", "hero_low_noise")
    assert len(made) == 3
    assert not [pair for pair in made if pair.high and pair.low]


def test_a_file_of_both_sides_is_its_own_other_half() -> None:
    (pair,) = pairs([Half("both.safetensors", None, 7)])
    assert pair == Pair("both", 7, "both.safetensors", "both.safetensors")
