"""MP4 files: sizes, rates, boxes that browsers need, and colours, read back by ffmpeg."""

import struct
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings

from deployments.media.encoding import encode
from serve_app.spec import OutputFormat
from tests.deployments.media.clips import counts, noise, patches, rates, read_video, sizes


def boxes(data: bytes) -> list[str]:
    """Return names of the top-level boxes of an MP4, in file order."""
    names = []
    while data:
        size, name = struct.unpack(">I4s", data[:8])
        names.append(name.decode())
        data = data[size:]
    return names


def written_rate(data: bytes) -> tuple[int, Fraction]:
    """Return frames and frames per second of an MP4 with one constant rate, from its `mdhd` and `stts` boxes."""
    media, table = data.index(b"mdhd") + 4, data.index(b"stts") + 4
    (ticks_per_second,) = struct.unpack_from(">I", data, media + 12)
    runs, count, ticks = struct.unpack_from(">III", data, table + 4)
    assert runs == 1
    return count, Fraction(ticks_per_second, ticks)


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(width=sizes, height=sizes, count=counts, fps=rates)
def test_every_size_count_and_rate_survives(width: int, height: int, count: int, fps: int) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        encode(noise(count, height, width), fps, OutputFormat.MP4, path)
        video = read_video(path)
    assert video.frames.shape == (count, height, width, 3)
    assert video.times == pytest.approx([index / fps for index in range(count)], abs=1e-4)


@pytest.mark.slow
def test_every_rate_is_written_exactly(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    for fps in range(1, 121):
        encode(noise(3), fps, OutputFormat.MP4, path)
        assert written_rate(path.read_bytes()) == (3, Fraction(fps))


def test_browsers_can_play_it(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    encode(noise(), 16, OutputFormat.MP4, path)
    stream = read_video(path).stream
    assert "h264" in stream
    assert "yuv420p(tv, bt709, progressive)" in stream  # one word where matrix, primaries and transfer agree
    assert "16 fps" in stream
    order = boxes(path.read_bytes())
    assert order.index("moov") < order.index("mdat")


def test_colours_come_back(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    encode(patches(), 16, OutputFormat.MP4, path)
    error = np.abs(read_video(path).frames - patches()).mean(axis=(1, 2))
    assert error.max() <= 1.5  # of 255: 8-bit YUV cannot do better; BT.601 taken for BT.709 is off by up to 60


def test_a_smooth_clip_loses_nothing_visible(tmp_path: Path) -> None:
    y, x, t = np.meshgrid(np.arange(96), np.arange(160), np.arange(9), indexing="ij")
    waves = [127.5 + 127 * np.sin(x / 23 + y / 17 + t / 5 + phase) for phase in (0, 2, 4)]
    clip = np.stack(waves, axis=-1).transpose(2, 0, 1, 3).round().astype(np.uint8)
    path = tmp_path / "clip.mp4"
    encode(clip, 16, OutputFormat.MP4, path)
    luma = (read_video(path).frames - clip) @ [0.2126, 0.7152, 0.0722]
    assert 10 * np.log10(255**2 / np.square(luma).mean()) > 48  # dB; luma, because 4:2:0 alone costs chroma more


@pytest.mark.slow
def test_a_clip_large_enough_for_threads_is_whole_and_repeatable(tmp_path: Path) -> None:
    clip = np.repeat(noise(11, 60, 104), 8, axis=1).repeat(8, axis=2)
    one, two = tmp_path / "one.mp4", tmp_path / "two.mp4"
    for path in (one, two):
        encode(clip, 16, OutputFormat.MP4, path)
    assert read_video(one).frames.shape == clip.shape
    assert one.read_bytes() == two.read_bytes()


def test_a_path_is_never_taken_for_a_protocol_or_an_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("-y.mp4", "pipe:1", "clip 100%03d.mp4"):
        encode(noise(2), 16, OutputFormat.MP4, Path(name))
        assert len(read_video(tmp_path / name).frames) == 2
