"""The trained demo does what it is told: colour, shape and direction are read back from its frames."""

import pytest

from deployments.wan.runtime import WanRuntime
from tests.deployments.wan.conftest import difference, frames_of, make_spec
from tests.deployments.wan.demo.conftest import trained_pair
from tests.deployments.wan.demo.gallery import DRAFT, SOME, Gallery, Shown

pytestmark = pytest.mark.slow

DEFAULT_STEPS = 25
A_BATCH_DIFFERS = 0.1  # of 255, on average over the pixels: other kernels round otherwise


def wrong(shown: list[Shown]) -> list[tuple[str, object]]:
    return [(one.wanted.prompt, one.reading) for one in shown if not one.right]


def test_prompts_are_followed_with_the_default_recipe(gallery: Gallery) -> None:
    """5 of 6; chance is 1 of 90. With eight steps, test_pairs.py looks at twice as many."""
    shown = gallery.show(SOME, sample_steps=DEFAULT_STEPS)
    assert len(wrong(shown)) <= 1, wrong(shown)


def test_four_steps_are_enough_for_the_draft_pair(gallery: Gallery) -> None:
    shown = gallery.show(SOME, draft=trained_pair("wan22_draft"), **DRAFT)
    assert len(wrong(shown)) <= 1, wrong(shown)


def test_a_batch_shows_what_the_runtime_renders(gallery: Gallery, trained: WanRuntime) -> None:
    pair = trained_pair("wan22_demo")
    wanted = SOME[0]
    in_batch = gallery.show(SOME[:2], *pair, word="sks ")[0]
    spec = make_spec(
        *pair, prompt=f"sks {wanted.prompt}", seed=wanted.seed, width=128, height=128, num_frames=17, sample_steps=8
    )
    assert difference(in_batch.frames, frames_of(trained, spec)) < A_BATCH_DIFFERS
