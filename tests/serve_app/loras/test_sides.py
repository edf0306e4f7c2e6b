"""The side rule: which expert the name of a LoRA file means."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.loras.formats import Layout, LoraContents, Provenance
from serve_app.loras.sides import files_for, likely_side, side_of
from serve_app.spec import Expert

PLAIN = LoraContents(Layout.AI_TOOLKIT, {None: ()}, (), Provenance())
COMBINED = LoraContents(Layout.AI_TOOLKIT, {Expert.HIGH: (), Expert.LOW: ()}, (), Provenance())


def called(*names: str) -> LoraContents:
    """Return a file whose metadata gives the training these names."""
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


# The whole rule as a table: every name beside what it says. H and L stand for the experts, - for none or both.
TABLE = """
H  hero_high_noise
L  hero-low-noise
H  heroHighNoise
L  heroLOWNoise
H  HIGHnoise
L  lownoise_hero
H  heroHIGHnoise_v2
H  hero.high.noise.e20
L  hero (low noise)
H  noise_high_hero
L  hero_noise-low_v3
H  wan22_HN
L  wan22_ln_v2
H  heroHN
L  hero_LN_low_poly
H  h_noise_hero
H  low_poly_high_noise
L  low_poly_low_noise
H  low_poly_HIGH
L  high_quality_low_v2
H  low_noise_free_style/hero_high_noise
H  high_noise_low_poly
L  hero_low_000001000
H  hero_high_e20_fp16
L  hero_low_rank64
H  Wan2.2-T2V-A14B-high-4steps-rank64
H  hero_H
L  hero_L
H  heroH
L  hero_l
H  hero-h-v2
H  Wan22-H-e8
L  low_rider_L
H  low_rider_H
H  low_rider_high
H  high_rider
L  low hero style
H  H_hero
L  low/hero
H  loras/high_noise/hero
L  high/hero_low
H  high_and_low/hero_high
H  wan/h.high/low_rider
L  L/hero
H  heroes/HIGH/v2
-  high_low
-  low_noise_and_high_noise
-  high and low noise
-  high_noise_vs_low_noise
-  high/low_high
-  H_L
-  h_l
-  high_hero_low_rider
-  low_poly
-  high_five
-  high_noon_duel
-  low_fi_beats
-  high_altitude_drone
-  low_cut_dress
H  high_five_high_noise
L  high_tide_L
L  low_tide_low_noise
-  HighRes
-  low-rank64
-  hero_H264
-  styled_for_L40
-  h_hero
-  flow
-  slow_motion
-  yellownoise
-  Highlander
-  hl
-  l
-  noise
-  2.2
"""
ROWS = [(line[3:], {"H": Expert.HIGH, "L": Expert.LOW, "-": None}[line[0]]) for line in TABLE.strip().splitlines()]


@pytest.mark.parametrize(("name", "side"), ROWS, ids=[name for name, _ in ROWS])
def test_the_side_that_a_name_speaks_of(name: str, side: Expert | None) -> None:
    assert side_of(name) is side
    assert side_of(f"{name}.safetensors") is side
    assert side_of(f"{name}.SafeTensors") is side


@pytest.mark.parametrize(
    ("high", "low", "others"),
    [
        ("low_poly_high_noise", "low_poly_low_noise", ()),
        ("hero_H", "hero_L", ()),
        ("hero_HN_v2", "hero_LN_v3", ("low_poly_style", "HighRes")),
        ("H/hero", "L/hero", ()),
        ("high_hero", "low_hero", ("hero",)),
        ("wan22_HIGH_e20_by_me", "wan22_LOW_e18_by_me", ()),
        ("hero_high", "hero_low", ("low_rider", "high_rider_style", "high_low")),
        ("a/low_rider_high_noise", "a/low_rider_low_noise", ("high_low",)),
    ],
)
def test_each_half_of_a_pair_is_found_among_others(high: str, low: str, others: tuple[str, ...]) -> None:
    files = [f"{name}.safetensors" for name in (low, high, *others)]
    assert files_for(Expert.HIGH, files) == [f"{high}.safetensors"]
    assert files_for(Expert.LOW, files) == [f"{low}.safetensors"]


@pytest.mark.parametrize(
    "files",
    [
        ("low_poly_style", "high_noise"),
        ("low_rider", "high_noise"),
        ("low_rider_style", "hero_high"),
        ("hero", "hero_high_noise"),
        ("high_low", "hero_high"),
        ("low_poly", "high_poly"),
    ],
)
def test_a_file_that_only_sounds_like_the_low_half_is_not_taken_for_it(files: tuple[str, ...]) -> None:
    assert files_for(Expert.LOW, files) == []


def test_two_files_for_one_side_are_both_given() -> None:
    files = ["a_high_noise", "b_high", "high_rider", "c_low"]
    assert files_for(Expert.HIGH, files) == ["a_high_noise", "b_high"]
    assert files_for(Expert.ONLY, files) == []


SIDES = st.sampled_from([(Expert.HIGH, "high", "h"), (Expert.LOW, "low", "l")])
SEPARATORS = st.text("_- .()[]+~,0123456789", min_size=1, max_size=3)
CASES = st.sampled_from([str.lower, str.upper, str.capitalize])
# These letters make no word that gives "high" or "low" another sense, and none that joins them.
WORDS = (st.text("abcghilmnow", min_size=2, max_size=8) | st.sampled_from(["flow", "slowly", "highres", "wan"])).filter(
    lambda word: word not in ("high", "low", "hn", "ln")
)
FILLERS = st.sampled_from(["", "_v2", "-e20", "_000001000", ".fp16", " rank 64", "_lora_v1.2_final"])


@st.composite
def beside_noise(draw: st.DrawFn) -> tuple[Expert, str]:
    """Return a side and "noise", apart or together, in any case."""
    expert, word, _ = draw(SIDES)
    return expert, f"{draw(CASES)(word)}{draw(st.text('_- .', max_size=2))}{draw(CASES)('noise')}"


@given(beside_noise(), WORDS, SEPARATORS, SEPARATORS, WORDS)
def test_noise_beside_the_word_decides_whatever_surrounds_it(
    said: tuple[Expert, str], prefix: str, before: str, after: str, suffix: str
) -> None:
    expert, words = said
    assert side_of(f"{prefix}{before}{words}{after}{suffix}") is expert
    assert side_of(f"low_poly_{words}{after}high_{suffix}") is expert


@given(SIDES, CASES, WORDS, SEPARATORS, FILLERS)
def test_the_word_that_ends_a_name_decides_whatever_is_before_it(
    side: tuple[Expert, str, str], case: Callable[[str], str], prefix: str, separator: str, filler: str
) -> None:
    expert, word, letter = side
    for spelled in (word, letter, f"{letter}n"):
        assert side_of(f"{prefix}{separator}{case(spelled)}{filler}") is expert
        assert side_of(f"low_rider_{prefix}{separator}{case(spelled)}{filler}") is expert


@given(WORDS, CASES, st.sampled_from([("High", Expert.HIGH), ("Low", Expert.LOW)]))
def test_camel_case_separates_words(prefix: str, case: Callable[[str], str], said: tuple[str, Expert]) -> None:
    word, expert = said
    assert side_of(f"{prefix}{word}") is expert
    assert side_of(f"{prefix.capitalize()}{word}Noise_{case(prefix)}") is expert


@given(st.tuples(WORDS, SEPARATORS), st.tuples(SEPARATORS, WORDS), CASES, st.sampled_from(["{}", "{} noise", "{}n"]))
def test_each_half_of_any_pair_is_found(
    prefix: tuple[str, str], suffix: tuple[str, str], case: Callable[[str], str], spelling: str
) -> None:
    words = ("h", "l") if spelling == "{}n" else ("high", "low")
    high, low = (f"{''.join(prefix)}{spelling.format(case(word))}{''.join(suffix)}.safetensors" for word in words)
    for others in ([], ["hero.safetensors", "low_rider.safetensors", "low_poly_style.safetensors"]):
        assert files_for(Expert.HIGH, [low, high, *others]) == [high]
        assert files_for(Expert.LOW, [low, high, *others]) == [low]


@given(st.text(max_size=60))
def test_any_text_is_a_name(name: str) -> None:
    assert side_of(name) in (Expert.HIGH, Expert.LOW, None)
    assert set(files_for(Expert.HIGH, [name])).isdisjoint(files_for(Expert.LOW, [name]))


def test_names_in_the_metadata_count_where_the_file_s_own_tells_nothing() -> None:
    assert likely_side("x", called("a_low_noise")) is Expert.LOW
    assert likely_side("x", called("x", "a_high_noise")) is Expert.HIGH
    assert likely_side("x_high", called("a_low_noise")) is Expert.HIGH
    assert likely_side("x", called("x")) is None
