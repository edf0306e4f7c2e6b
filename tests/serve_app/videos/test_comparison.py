"""Two video files: what tells them apart, found in the files as encoders leave them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from deployments.media.encoding import encode
from serve_app.clips.reading import Frames, NotAVideo, read_clip
from serve_app.spec import OutputFormat
from serve_app.videos.comparison import SAME_DB, Difference, compare
from serve_app.videos.explanation import explain


def clip(length: int = 12, width: int = 96, height: int = 64, start: int = 0) -> Frames:
    """Return a bright square that moves right over a slope of colours."""
    frames = np.zeros((length, height, width, 3), np.uint8)
    frames[..., 0] = np.linspace(0, 200, width, dtype=np.uint8)
    frames[..., 1] = np.linspace(0, 120, height, dtype=np.uint8)[:, None]
    for number, frame in enumerate(frames):
        left = 4 + 5 * (number + start)
        frame[10:30, left : left + 20] = (240, 230, 40)
    return frames


def difference(tmp_path: Path, first: Frames, second: Frames, fps: tuple[int, int] = (16, 16)) -> Difference:
    encode(first, fps[0], OutputFormat.WEBP, tmp_path / "preview.webp")
    encode(second, fps[1], OutputFormat.MP4, tmp_path / "output.mp4")
    return compare(read_clip(tmp_path / "preview.webp"), read_clip(tmp_path / "output.mp4"))


def settings(found: Difference) -> list[str]:
    return [finding.setting for finding in explain(found)]


@pytest.mark.parametrize("output_format", OutputFormat)
def test_every_format_is_read_frame_by_frame(tmp_path: Path, output_format: OutputFormat) -> None:
    path = tmp_path / "video.any"
    encode(clip(), 24, output_format, path)
    read = read_clip(path)
    assert read.frames.shape == (12, 64, 96, 3)
    assert read.size == (96, 64)
    assert read.fps is None if output_format is OutputFormat.PNG else read.fps == pytest.approx(24, rel=0.02)
    assert np.abs(read.frames.astype(int) - clip()).mean() < 4


def test_two_encodings_of_the_same_frames_show_the_same(tmp_path: Path) -> None:
    found = difference(tmp_path, clip(), clip())
    assert (settings(found), found.shift, found.mirrored) == ([], 0, None)
    assert found.mean_psnr > SAME_DB


def test_size_length_and_rate_are_named_with_the_option_to_write(tmp_path: Path) -> None:
    found = difference(tmp_path, clip(), clip(length=8, width=128), fps=(16, 24))
    texts = {finding.setting: finding.text for finding in explain(found)}
    assert "--size 96x64" in texts["size"]
    assert "--frames 12" in texts["frames"]
    assert "--fps 16" in texts["fps"]


def test_another_size_of_the_same_shape_shows_the_same_pictures(tmp_path: Path) -> None:
    doubled = clip().repeat(2, axis=1).repeat(2, axis=2)
    assert settings(difference(tmp_path, clip(), doubled)) == ["size"]


@pytest.mark.parametrize(("start", "late"), [(3, -3), (-3, 3)])
def test_a_shift_in_time_is_found_with_its_frames(tmp_path: Path, start: int, late: int) -> None:
    found = difference(tmp_path, clip(start=3), clip(start=3 + start))
    assert found.shift == late
    assert settings(found) == ["start"]


@pytest.mark.parametrize(
    ("change", "setting"),
    [
        (lambda frames: frames[:, :, ::-1], "mirrored"),
        (lambda frames: frames[:, ::-1], "mirrored"),
        (lambda frames: frames[::-1], "reversed"),
    ],
)
def test_mirrored_and_reversed_pictures_are_found(
    tmp_path: Path, change: Callable[[Frames], Frames], setting: str
) -> None:
    assert settings(difference(tmp_path, clip(), change(clip()))) == [setting]


def test_other_pictures_are_other_settings(tmp_path: Path) -> None:
    other = np.random.default_rng(0).integers(0, 255, clip().shape, np.uint8)
    (finding,) = explain(difference(tmp_path, clip(), other))
    assert "another seed" in finding.text


def test_embedded_settings_explain_what_the_pictures_cannot(tmp_path: Path) -> None:
    other = np.random.default_rng(0).integers(0, 255, clip().shape, np.uint8)
    found = difference(tmp_path, clip(), other)
    differing = {"seed": (42, 43), "output_format": ("webp", "mp4"), "loras[0].network_multiplier": (0.8, 1.0)}
    (finding,) = explain(found, differing)
    assert finding.text == "render with --seed 42 (and not 43), --strength 0.8 (and not 1.0)"
    assert explain(difference(tmp_path, clip(), clip()), differing) == []


def test_pictures_that_part_later_are_another_way_to_compute(tmp_path: Path) -> None:
    other = clip()
    other[6:] = 255 - other[6:]
    (finding,) = explain(difference(tmp_path, clip(), other))
    assert "alike for 6 of 12 frames" in finding.text


@pytest.mark.parametrize("content", [b"", b"no video at all", b"PK\x03\x04no zip", b"RIFFxxxxWEBP", b"\x89PNG"])
def test_what_is_no_video_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(NotAVideo, match=r"a\.mp4"):
        read_clip(path)
