"""Animated WebP: frames, durations and the endless loop, read back by Pillow."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from PIL import Image, ImageSequence

from deployments.media.encoding import encode
from deployments.pipeline import Frames
from serve_app.spec import OutputFormat
from tests.deployments.media.clips import counts, noise, patches, rates, sizes


def read_webp(path: Path) -> tuple[Frames, list[int]]:
    """Return frames and their durations in milliseconds, as Pillow and the libwebp below it read them."""
    frames, durations = [], []
    with Image.open(path) as image:
        for frame in ImageSequence.Iterator(image):
            frames.append(np.asarray(frame.convert("RGB")))
            durations.append(frame.info["duration"])
    return np.stack(frames), durations


@settings(max_examples=20, deadline=None)
@given(width=sizes, height=sizes, count=counts, fps=rates)
def test_every_size_count_and_rate_survives(width: int, height: int, count: int, fps: int) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "clip.webp"
        encode(noise(count, height, width), fps, OutputFormat.WEBP, path)
        frames, durations = read_webp(path)
    assert frames.shape == (count, height, width, 3)
    assert sum(durations) == round(1000 * count / fps)
    assert max(durations) - min(durations) <= 1


@pytest.mark.parametrize("count", [1, 5])
def test_equal_frames_stay_frames(tmp_path: Path, count: int) -> None:
    path = tmp_path / "clip.webp"
    encode(np.repeat(noise(1), count, axis=0), 16, OutputFormat.WEBP, path)
    frames, durations = read_webp(path)
    assert len(frames) == count
    assert sum(durations) == round(1000 * count / 16)


def test_it_loops_forever_and_looks_like_the_clip(tmp_path: Path) -> None:
    path = tmp_path / "clip.webp"
    encode(patches(), 16, OutputFormat.WEBP, path)
    with Image.open(path) as image:
        assert image.info["loop"] == 0
    frames, _ = read_webp(path)
    assert np.abs(frames.astype(int) - patches()).mean(axis=(1, 2)).max() <= 3
