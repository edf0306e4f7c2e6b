"""The door to the encoders: reproducible bytes, replaced files, full disks, wrong frames."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from deployments.media.encoding import encode
from serve_app.errors import OutputNotWritten
from serve_app.spec import OutputFormat
from tests.deployments.media.clips import noise

every_format = pytest.mark.parametrize("output_format", OutputFormat)


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """Yield a file on a device that refuses every byte with ENOSPC."""
    path = tmp_path / "clip"
    path.symlink_to("/dev/full")
    yield path


@every_format
def test_equal_frames_give_equal_bytes(tmp_path: Path, output_format: OutputFormat) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for path in (one, two):
        encode(noise(), 16, output_format, path)
    assert one.read_bytes() == two.read_bytes()


@every_format
def test_an_older_file_is_replaced(tmp_path: Path, output_format: OutputFormat) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_bytes(bytes(1_000_000))
    for path in (old, new):
        encode(noise(), 16, output_format, path)
    assert old.read_bytes() == new.read_bytes()


@every_format
def test_a_view_with_strides_is_encoded_like_its_copy(tmp_path: Path, output_format: OutputFormat) -> None:
    view = noise(6, 64, 128)[::2, :, ::-2]
    one, two = tmp_path / "one", tmp_path / "two"
    encode(view, 16, output_format, one)
    encode(view.copy(), 16, output_format, two)
    assert one.read_bytes() == two.read_bytes()


@every_format
@pytest.mark.parametrize("size", [64, 512])  # within and beyond one pipe buffer
def test_a_full_disk_is_named_and_leaves_nothing(full_disk: Path, output_format: OutputFormat, size: int) -> None:
    with pytest.raises(OutputNotWritten, match="No space left on device") as caught:
        encode(noise(9, size, size), 16, output_format, full_disk)
    assert "0x" not in caught.value.message
    assert not full_disk.is_symlink()
    assert Path("/dev/full").exists()


@every_format
def test_a_path_below_a_file_is_refused(tmp_path: Path, output_format: OutputFormat) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputNotWritten, match="Not a directory"):
        encode(noise(), 16, output_format, tmp_path / "file" / "clip")


@every_format
@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((5, 64, 64, 3), np.float32),
        np.zeros((64, 64, 3), np.uint8),
        np.zeros((5, 64, 64, 4), np.uint8),
        np.zeros((0, 64, 64, 3), np.uint8),
        np.zeros((5, 63, 64, 3), np.uint8),
    ],
    ids=["float", "one picture", "alpha", "no frames", "odd height"],
)
def test_anything_but_rgb_frames_is_a_programming_error(
    tmp_path: Path, output_format: OutputFormat, frames: np.ndarray
) -> None:
    with pytest.raises(ValueError, match="64"):
        encode(frames, 16, output_format, tmp_path / "clip")
    assert not (tmp_path / "clip").exists()


def test_a_missing_ffmpeg_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "nowhere"))
    with pytest.raises(OutputNotWritten, match="No such file"):
        encode(noise(), 16, OutputFormat.MP4, tmp_path / "clip.mp4")
