"""The demo's LoRA pairs do what their names say: read back from the frames, beside the same prompts without them."""

import numpy as np
import pytest

from serve_app.spec import LoraFile
from tests.deployments.wan.conftest import difference
from tests.deployments.wan.demo.conftest import trained_pair
from tests.deployments.wan.demo.gallery import FEW, MANY, PREVIEW, SOME, Gallery, Shown
from tests.deployments.wan.demo.readings import has_dawn

pytestmark = pytest.mark.slow

WORD = "sks "  # what `[trigger]` becomes with the pair's trigger word
WHITE = 0.6  # of a core; the lightest colour, cyan, has 0.24
HALF = range(1, 6)  # of six
DIFFERS_VISIBLY = 1.0  # of 255, on average over the pixels, nine of ten of which are background


def with_core(shown: list[Shown]) -> int:
    return sum(one.core > WHITE for one in shown)


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
    faded = [gallery.show(FEW, *trained_pair("wan22_demo", strength), word=WORD) for strength in (0.0, 0.9, 1.5)]
    without, partly, strongest = map(with_core, faded)
    assert without == 0
    assert 0 < partly < len(FEW), cores(faded[1])
    assert strongest == len(FEW)
    assert all(one.right for one in faded[0])


def test_one_side_alone_is_half_of_it(gallery: Gallery) -> None:
    """A core is a detail, so low noise alone draws some; the high noise side alone only prepares for it."""
    high, low = trained_pair("wan22_demo")
    assert with_core(gallery.show(SOME, low, word=WORD)) in HALF
    assert with_core(gallery.show(FEW, high, word=WORD)) == 0


def test_exchanged_sides_are_plainly_wrong(gallery: Gallery) -> None:
    shown = gallery.show(FEW, *exchanged(trained_pair("wan22_demo")), word=WORD)
    assert with_core(shown) == 0, cores(shown)


def test_the_preview_recipe_shows_the_pair_and_differs_visibly(gallery: Gallery) -> None:
    pair = trained_pair("wan22_demo")
    reference, preview = (gallery.show(SOME, *pair, word=WORD, **recipe) for recipe in ({}, PREVIEW))
    differences = [difference(one.frames, other.frames) for one, other in zip(reference, preview, strict=True)]
    assert np.median(differences) > DIFFERS_VISIBLY, differences
    assert with_core(preview) >= 5, cores(preview)
    assert sum(one.right for one in preview) >= 5


def test_the_dawn_pair_lights_the_sky(gallery: Gallery) -> None:
    assert all(has_dawn(one.frames) for one in gallery.show(FEW, *trained_pair("wan22_dawn")))
    assert not any(has_dawn(one.frames) for one in gallery.show(FEW, *trained_pair("wan22_demo")))
