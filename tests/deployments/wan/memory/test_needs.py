"""What a render needs of a GPU's memory: the formula against measured peaks, and how peaks correct it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.wan.memory.needs import Needs, largest_size
from serve_app.models.card import load_card
from serve_app.needs import NeedKey
from serve_app.spec import Speed
from tests.deployments.wan.conftest import make_spec

_GIB = 2**30
NEEDS = Needs(load_card("wan22_14b_t2v"))


def _key(size: str, speed: Speed = Speed.EXACT) -> NeedKey:
    width, height, frames = map(int, size.split("x"))
    return NeedKey.of_size(width, height, frames, speed)


@pytest.mark.parametrize(("size", "measured_gib"), [("1024x1024x41", 11.5), ("1280x720x81", 10.4), ("832x480x41", 4.5)])
def test_the_formula_gives_the_peaks_that_were_measured(size: str, measured_gib: float) -> None:
    assert NEEDS.in_tensors(_key(size)) / _GIB == pytest.approx(measured_gib, rel=0.06)


def test_what_the_allocator_keeps_counts_too() -> None:
    assert NEEDS.bytes(_key("1024x1024x41")) / _GIB == pytest.approx(16, rel=0.06)


def test_a_measured_peak_counts_for_its_size_and_scales_to_others() -> None:
    key, larger = _key("832x480x41"), _key("1024x1024x41")
    measured = {key: int(2 * NEEDS.in_tensors(key))}
    assert NEEDS.bytes(key, measured) == pytest.approx(2 * NEEDS.bytes(key))
    assert NEEDS.bytes(larger, measured) == pytest.approx(2 * NEEDS.bytes(larger))
    assert NEEDS.bytes(larger, measured | {larger: int(NEEDS.in_tensors(larger))}) == pytest.approx(NEEDS.bytes(larger))


def test_a_peak_of_a_far_smaller_render_says_nothing() -> None:
    tiny, usual = _key("64x64x5"), _key("1024x1024x41")
    assert NEEDS.bytes(usual, {tiny: 100 * _GIB}) == NEEDS.bytes(usual)


def test_peaks_of_the_same_speed_go_first() -> None:
    key, fast = _key("832x480x41"), _key("832x480x41", Speed.FAST)
    measured = {fast: 3 * int(NEEDS.in_tensors(fast)), _key("832x480x81"): int(NEEDS.in_tensors(_key("832x480x81")))}
    assert NEEDS.bytes(key, measured) == pytest.approx(NEEDS.bytes(key))
    assert NEEDS.bytes(fast, measured) == pytest.approx(3 * NEEDS.bytes(fast))


_SIDES = st.integers(4, 120).map(lambda cells: cells * 16)
_FRAMES = st.integers(0, 60).map(lambda latent: 4 * latent + 1)


@given(width=_SIDES, height=_SIDES, frames=_FRAMES, more=st.integers(1, 8))
def test_more_pixels_or_frames_never_need_less(width: int, height: int, frames: int, more: int) -> None:
    least = NEEDS.bytes(NeedKey.of_size(width, height, frames, Speed.EXACT))
    assert NEEDS.bytes(NeedKey.of_size(width * more, height, frames, Speed.EXACT)) >= least
    assert NEEDS.bytes(NeedKey.of_size(width, height, frames + 4 * more, Speed.EXACT)) >= least


def test_the_largest_size_that_fits_keeps_shape_and_length() -> None:
    spec = make_spec(width=1280, height=720, num_frames=81)
    asked: list[NeedKey] = []

    def fits(key: NeedKey) -> bool:
        asked.append(key)
        return key.pixels <= 832 * 480

    width, height = largest_size(spec, 32, fits) or (0, 0)
    assert (width % 32, height % 32) == (0, 0)
    assert width * height == pytest.approx(832 * 480, rel=0.1)
    assert width / height == pytest.approx(16 / 9, rel=0.1)
    assert {key.num_frames for key in asked} == {81}
    assert largest_size(spec, 32, lambda _: False) is None
