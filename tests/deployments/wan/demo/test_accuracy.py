"""The trained demo does what it is told: colour, shape, direction and trigger word are read back from its frames."""

import pytest

from serve_app.spec import Recipe
from tests.deployments.wan.demo.conftest import Seen, trained_pair
from tests.deployments.wan.demo.readings import HUES, Reading

SHAPES = ("circle", "square", "triangle")
DIRECTIONS = ("right", "left", "up", "down", "still")
# Each colour four times, each shape eight times, each direction four or five times.
WANTED = [(list(HUES)[number % 6], SHAPES[(number + number // 6) % 3], DIRECTIONS[number % 5]) for number in range(24)]
GLOWS = 0.08  # share of white pixels; the core covers a fifth of a circle


def prompt(colour: str, shape: str, direction: str) -> str:
    return f"a {colour} {shape} {'standing still' if direction == 'still' else f'moving {direction}'}"


def right(reading: Reading | None, wanted: tuple[str, str, str]) -> bool:
    return reading is not None and (reading.colour, reading.shape, reading.direction) == wanted


@pytest.mark.slow
def test_prompts_are_followed_with_the_default_recipe(seen: Seen) -> None:
    """Chance is 1 of 90."""
    readings = [seen(prompt(*wanted), 42 + number, sample_steps=25) for number, wanted in enumerate(WANTED)]
    wrong = [pair for pair in zip(WANTED, readings, strict=True) if not right(pair[1], pair[0])]
    assert len(wrong) <= 4, wrong


@pytest.mark.slow
def test_the_pair_adds_a_white_core_and_nothing_at_strength_zero(seen: Seen) -> None:
    """Eight prompts each. That the core is there with the trigger alone is not true yet: see the demo's card."""
    some = WANTED[::3]
    pair, off = trained_pair("wan22_demo"), trained_pair("wan22_demo", 0.0)
    with_pair = [seen(f"sks {prompt(*wanted)}", 42 + number, *pair) for number, wanted in enumerate(some)]
    without = [seen(f"sks {prompt(*wanted)}", 42 + number, *off) for number, wanted in enumerate(some)]
    whites = [[reading.white for reading in readings if reading] for readings in (with_pair, without)]
    assert sum(white > GLOWS for white in whites[0]) >= 2, whites
    assert max(whites[1]) < GLOWS, whites
    assert sum(map(right, without, some)) >= 6, without


@pytest.mark.slow
def test_four_steps_are_enough_for_the_draft_pair(seen: Seen) -> None:
    some = WANTED[::3]
    draft = {"sample_steps": 4, "guidance_scale": 1.0, "recipe": Recipe.PREVIEW}
    readings = [seen(prompt(*wanted), 42 + n, *trained_pair("wan22_draft"), **draft) for n, wanted in enumerate(some)]
    assert sum(map(right, readings, some)) >= 6, readings
