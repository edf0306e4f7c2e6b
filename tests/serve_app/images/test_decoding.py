"""What becomes of an image is what the reference server's calls of Pillow make of it, for every format and mode."""

import io
import warnings

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from serve_app.images.decoding import ImageFacts, inspect, pixels
from serve_app.images.header import ImageFormat, ImageLimits
from serve_app.spec import Fit
from tests.serve_app.images.by_hand import BMP_KINDS, PNG_KINDS, bmp, png
from tests.serve_app.images.files import KINDS, animation, file, picture, saved

LIMITS = ImageLimits()
SIDES = st.integers(1, 70)
ORIENTATIONS = range(1, 9)


def by_the_reference(data: bytes, width: int, height: int) -> npt.NDArray[np.uint8]:
    """Return the reference server's three calls, in its order, on a file of any kind."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = Image.open(io.BytesIO(data)).convert("RGB")
    return np.asarray(image.resize((width, height), Image.LANCZOS))  # type: ignore[attr-defined]


def stretched(data: bytes, width: int, height: int, fit: Fit = Fit.STRETCH) -> npt.NDArray[np.uint8]:
    return pixels(data, fit, width, height, LIMITS)[0]


@given(kind=st.sampled_from(KINDS), width=SIDES, height=SIDES, to=st.tuples(SIDES, SIDES), seed=st.integers(0, 9))
def test_every_kind_of_file_gives_the_frames_of_the_reference(
    kind: tuple[str, str], width: int, height: int, to: tuple[int, int], seed: int
) -> None:
    data = file(*kind, width, height, seed=seed)
    found, facts = pixels(data, Fit.STRETCH, *to, LIMITS)
    assert found.shape == (to[1], to[0], 3)
    assert found.dtype == np.uint8
    assert np.array_equal(found, by_the_reference(data, *to))
    assert (facts.format, facts.width, facts.height, facts.frames) == (kind[0].lower(), width, height, 1)


@pytest.mark.parametrize("kind", PNG_KINDS)
def test_every_colour_type_depth_and_interlacing_of_png(kind: tuple[int, int, bool, bool]) -> None:
    for width, height, to in ((1, 1, (16, 16)), (3, 9, (3, 9)), (33, 20, (16, 48))):
        data = png(kind, width, height)
        assert np.array_equal(stretched(data, *to), by_the_reference(data, *to))
        facts = inspect(data, LIMITS)
        assert (facts.width, facts.height, facts.frames) == (width, height, 1)
        assert facts.has_alpha is (kind[0] in (4, 6) or kind[3])


@pytest.mark.parametrize("kind", BMP_KINDS)
def test_every_depth_and_header_of_bmp(kind: tuple[int, int, bool]) -> None:
    for width, height, to in ((1, 1, (16, 16)), (33, 20, (16, 48))):
        data = bmp(kind, width, height)
        assert np.array_equal(stretched(data, *to), by_the_reference(data, *to))
        assert (inspect(data, LIMITS).width, inspect(data, LIMITS).height) == (width, height)


# What encoders may be told, and cameras and programs do tell them.
VARIANTS: list[tuple[str, str, dict[str, object]]] = [
    ("JPEG", "RGB", {"progressive": True}),
    ("JPEG", "CMYK", {"progressive": True}),
    ("JPEG", "RGB", {"subsampling": 0, "optimize": True, "restart_marker_rows": 1}),
    ("JPEG", "L", {"icc_profile": bytes(70_000), "comment": b"x" * 300, "dpi": (300, 300)}),
    ("WEBP", "RGB", {"quality": 1}),
    ("WEBP", "RGBA", {"lossless": True, "exact": True}),
    ("WEBP", "RGBA", {"quality": 50, "icc_profile": bytes(200), "xmp": b"<x/>"}),
    ("PNG", "RGBA", {"icc_profile": bytes(200), "dpi": (72, 72), "compress_level": 0}),
    ("GIF", "RGB", {"interlace": 0, "comment": b"noise"}),
    ("GIF", "P", {"interlace": 1}),
]


@given(variant=st.sampled_from(VARIANTS), width=SIDES, height=SIDES, to=st.tuples(SIDES, SIDES))
def test_what_an_encoder_was_told_changes_nothing(
    variant: tuple[str, str, dict[str, object]], width: int, height: int, to: tuple[int, int]
) -> None:
    form, mode, options = variant
    data = file(form, mode, width, height, **options)
    assert np.array_equal(stretched(data, *to), by_the_reference(data, *to))


@given(form=st.sampled_from(["JPEG", "PNG", "WEBP"]), orientation=st.sampled_from(ORIENTATIONS), width=SIDES)
def test_an_image_is_not_turned_and_that_is_said(form: str, orientation: int, width: int) -> None:
    data = file(form, width=width, height=31, orientation=orientation)
    assert inspect(data, LIMITS).orientation == orientation
    assert np.array_equal(stretched(data, width, 31), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P"])
def test_alpha_is_dropped_and_not_composited(mode: str) -> None:
    data = file("PNG", mode, 16, 16)
    image = Image.open(io.BytesIO(data))
    assert inspect(data, LIMITS).has_alpha
    unblended = np.asarray(image.convert("RGBA"))[..., :3]
    assert np.array_equal(stretched(data, 16, 16), unblended)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation_counts(form: str) -> None:
    data = animation(form, 5)
    assert inspect(data, LIMITS).frames == 5
    assert np.array_equal(stretched(data, 20, 12), by_the_reference(data, 20, 12))


@given(kind=st.sampled_from(KINDS), width=SIDES, height=SIDES, to=st.tuples(SIDES, SIDES))
def test_crop_covers_the_video_and_cuts_what_stands_out_evenly(
    kind: tuple[str, str], width: int, height: int, to: tuple[int, int]
) -> None:
    data = file(*kind, width, height)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = Image.open(io.BytesIO(data)).convert("RGB")
    scale = max(to[0] / width, to[1] / height)
    kept_width, kept_height = to[0] / scale, to[1] / scale
    left, top = (width - kept_width) / 2, (height - kept_height) / 2
    box = (max(left, 0), max(top, 0), min(left + kept_width, width), min(top + kept_height, height))
    wanted = np.asarray(image.resize(to, Image.Resampling.LANCZOS, box)).astype(int)
    assert np.abs(stretched(data, *to, Fit.CROP) - wanted).max() <= 1  # the box's corners are floats


@given(width=SIDES, height=SIDES, to=st.tuples(SIDES, SIDES))
def test_pad_keeps_all_of_the_image_in_the_middle_of_black(width: int, height: int, to: tuple[int, int]) -> None:
    data = file("PNG", "RGB", width, height)
    found = stretched(data, *to, Fit.PAD)
    image = Image.open(io.BytesIO(data))
    if min(ImageOps.contain(image, to).size) == 0:  # Pillow makes nothing of a line
        assert found.shape == (to[1], to[0], 3)
        assert found.any()
        return
    assert np.array_equal(found, np.asarray(ImageOps.pad(image, to, Image.Resampling.LANCZOS, color=(0, 0, 0))))


def test_bounds_of_pad_are_black_above_and_below_a_wide_image() -> None:
    white = saved(Image.new("RGB", (80, 20), "white"), "PNG")
    found = stretched(white, 40, 40, Fit.PAD)
    assert not found[:15].any()
    assert (found[15:25] == 255).all()
    assert not found[25:].any()


def test_grey_of_16_bits_is_cut_to_white_as_in_the_reference_and_that_is_said() -> None:
    data = file("PNG", "I;16", 12, 12)
    assert inspect(data, LIMITS).is_deep
    assert np.array_equal(stretched(data, 12, 12), by_the_reference(data, 12, 12))


def test_a_photo_of_a_phone_with_a_second_picture_inside_is_a_jpeg() -> None:
    first, second = picture("RGB", 40, 30), picture("RGB", 40, 30, seed=1)
    data = saved(first, "MPO", save_all=True, append_images=[second])
    assert inspect(data, LIMITS) == ImageFacts(ImageFormat.JPEG, 40, 30, 1, False, 1, False)
    assert np.array_equal(stretched(data, 16, 16), by_the_reference(data, 16, 16))
