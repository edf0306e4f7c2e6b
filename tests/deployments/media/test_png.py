"""ZIPs of PNG: frames come back bit for bit."""

from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZIP_STORED, ZipFile

import numpy as np
from hypothesis import given, settings
from PIL import Image

from deployments.media.encoding import encode
from deployments.pipeline import Frames
from serve_app.spec import OutputFormat
from tests.deployments.media.clips import counts, noise, rates, sizes


def read_zip(path: Path) -> tuple[list[str], Frames]:
    with ZipFile(path) as archive:
        assert archive.testzip() is None
        assert {entry.compress_type for entry in archive.infolist()} == {ZIP_STORED}
        names = archive.namelist()
        return names, np.stack([np.asarray(Image.open(archive.open(name))) for name in names])


@settings(max_examples=12, deadline=None)
@given(width=sizes, height=sizes, count=counts, fps=rates)
def test_frames_come_back_bit_for_bit_and_in_order(width: int, height: int, count: int, fps: int) -> None:
    clip = noise(count, height, width)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "clip.zip"
        encode(clip, fps, OutputFormat.PNG, path)
        names, frames = read_zip(path)
    assert names == [f"frame_{index:05d}.png" for index in range(count)]
    assert np.array_equal(frames, clip)
