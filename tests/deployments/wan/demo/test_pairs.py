"""The demo's LoRA pairs do what their names say: read back from the frames, beside the same prompts without them."""

from itertools import pairwise
from statistics import mean

import pytest

from serve_app.spec import LoraFile
from tests.deployments.wan.conftest import difference
from tests.deployments.wan.demo.conftest import trained_pair
from tests.deployments.wan.demo.gallery import DRAFT, FEW, MANY, PREVIEW, SOME, Gallery, Shown
from tests.deployments.wan.demo.readings import has_dawn

pytestmark = pytest.mark.slow

WORD = "sks "  # what `[trigger]` becomes with the pair's trigger word
WHITE = 0.6  # of a core; the lightest colour, cyan, has 0.24
STEP = 0.1  # by which the mean of the cores rises from one strength to the next
TWO = FEW[:2]
DIFFERS_VISIBLY = 1.0  # of 255, on average over the pixels, eight of ten of which are background


def with_core(shown: list[Shown]) -> int:
    return sum(one.core > WHITE for one in shown)


def core(shown: list[Shown]) -> float:
    return mean(one.core for one in shown)


def cores(shown: list[Shown]) -> list[tuple[str, float]]:
    return [(one.wanted.prompt, round(one.core, 2)) for one in shown]


def exchanged(pair: tuple[LoraFile, ...]) -> list[LoraFile]:
    """Return the pair with the file of each side on the other."""
    high, low = pair
    return [low.model_copy(update={"expert": high.expert}), high.model_copy(update={"expert": low.expert})]


def test_the_pair_adds_its_core_and_the_prompt_is_still_followed(gallery: Gallery) -> None:
    shown = gallery.show(MANY, *trained_pair("wan22_demo"), word=WORD)
    assert with_core(shown) >= 10, cores(shown)
    assert sum(one.right for one in shown) >= 10


def test_without_its_trigger_the_pair_stays_away(gallery: Gallery) -> None:
    shown = gallery.show(SOME, *trained_pair("wan22_demo"))
    assert with_core(shown) <= 1, cores(shown)
    assert sum(one.right for one in shown) >= 5


def test_strength_fades_the_pair_in(gallery: Gallery) -> None:
    """Half of the strength draws part of a core in each video; beyond 1 the core stays, and so does the rest."""
    faded = [gallery.show(FEW, *trained_pair("wan22_demo", strength), word=WORD) for strength in (0.0, 0.5, 0.75, 1.0)]
    assert all(more > less + STEP for less, more in pairwise(map(core, faded))), [cores(shown) for shown in faded]
    assert with_core(faded[1]) == 0, cores(faded[1])
    assert all(one.right for shown in faded for one in shown)
    strongest = gallery.show(FEW, *trained_pair("wan22_demo", 1.5), word=WORD)
    assert with_core(strongest) == len(FEW), cores(strongest)
    assert sum(one.right for one in strongest) >= len(FEW) - 1


def test_a_draft_shows_the_pair_at_the_same_strength(gallery: Gallery) -> None:
    shown = gallery.show(FEW, *trained_pair("wan22_demo"), word=WORD, draft=trained_pair("wan22_draft"), **DRAFT)
    assert core(shown) > WHITE, cores(shown)
    assert sum(one.right for one in shown) >= len(FEW) - 1


def test_one_side_alone_is_part_of_it(gallery: Gallery) -> None:
    """A core is a detail, so low noise alone draws some; the high noise side alone only prepares for it."""
    high, low = trained_pair("wan22_demo")
    without, both = (core(gallery.show(FEW, *trained_pair("wan22_demo", at), word=WORD)) for at in (0.0, 1.0))
    alone = gallery.show(FEW, low, word=WORD)
    assert without + STEP < core(alone) < both - STEP, cores(alone)
    assert with_core(gallery.show(TWO, high, word=WORD)) == 0


def test_exchanged_sides_are_plainly_wrong(gallery: Gallery) -> None:
    shown = gallery.show(TWO, *exchanged(trained_pair("wan22_demo")), word=WORD)
    assert with_core(shown) == 0, cores(shown)


def test_the_preview_recipe_shows_the_pair_and_some_videos_differ_visibly(gallery: Gallery) -> None:
    """Without a pair a recipe changes no more than this: the base follows its prompt in both."""
    pair = trained_pair("wan22_demo")
    reference, preview = (gallery.show(SOME, *pair, word=WORD, **recipe) for recipe in ({}, PREVIEW))
    differences = [difference(one.frames, other.frames) for one, other in zip(reference, preview, strict=True)]
    assert sum(value > DIFFERS_VISIBLY for value in differences) >= 2, differences
    assert with_core(preview) >= 5, cores(preview)
    assert sum(one.right for one in preview) >= 5


def test_the_dawn_pair_lights_the_sky(gallery: Gallery) -> None:
    assert all(has_dawn(one.frames) for one in gallery.show(FEW, *trained_pair("wan22_dawn")))
    assert not any(has_dawn(one.frames) for one in gallery.show(FEW, *trained_pair("wan22_demo")))
