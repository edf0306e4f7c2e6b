"""What is written into a file beside its frames, as other programs read it."""

import json
import re
import subprocess
from io import BytesIO
from pathlib import Path
from xml.sax.saxutils import unescape
from zipfile import ZipFile

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from deployments.media.encoding import encode
from serve_app.embedded import NAME, settings_text
from serve_app.spec import OutputFormat
from tests.deployments.media.clips import noise, patches, read_video
from tests.fixtures.specs import make_spec

HARD = "a =b; #c \\d \"e\" 'f' <g> &amp; ]]> wörter 🦊 \n next line\0"
LONG = "ü" * 10_000  # more bytes than an argument of a command may have, once there are several of them


def in_mp4(path: Path) -> str:
    """Return the comment, as ffmpeg reads it."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-i", path, "-f", "ffmetadata", "-"]
    said = subprocess.run(command, capture_output=True, check=True).stdout.decode()
    (comment,) = re.findall(r"^comment=((?:\\.|[^\n])*)$", said, re.MULTILINE | re.DOTALL)
    return re.sub(r"\\(.)", r"\1", comment, flags=re.DOTALL)


def in_webp(path: Path) -> str:
    """Return the property in its XMP, as Pillow reads it."""
    with Image.open(path) as image:
        (found,) = re.findall("<wan:settings>(.*)</wan:settings>", image.info["xmp"].decode())
    return unescape(found)


def in_png(path: Path) -> str:
    """Return the text of every frame, which is the same one."""
    with ZipFile(path) as archive:
        (text,) = {Image.open(BytesIO(archive.read(name))).text[NAME] for name in archive.namelist()}  # type: ignore[attr-defined]  # of PngImageFile
    return str(text)


READERS = {OutputFormat.MP4: in_mp4, OutputFormat.WEBP: in_webp, OutputFormat.PNG: in_png}


@pytest.mark.parametrize("output_format", OutputFormat)
@pytest.mark.parametrize(("prompt", "negative"), [("a fox", ""), (HARD, HARD), (LONG, LONG)])
def test_settings_come_back_as_they_were_written(
    output_format: OutputFormat, prompt: str, negative: str, tmp_path: Path
) -> None:
    text = settings_text(make_spec(prompt=prompt, negative_prompt=negative, seed=2**64 - 1))
    encode(noise(), 16, output_format, tmp_path / "clip", text)
    assert READERS[output_format](tmp_path / "clip") == text
    (made,) = json.loads(text)["request"]["prompts"]
    assert (made["prompt"], made["neg"], made["seed"]) == (prompt, negative, 2**64 - 1)
    assert [file.name for file in tmp_path.iterdir()] == ["clip"]


def test_frames_are_the_same_with_and_without(tmp_path: Path) -> None:
    for output_format in OutputFormat:
        plain, told = tmp_path / "plain", tmp_path / "told"
        encode(patches(), 16, output_format, plain)
        encode(patches(), 16, output_format, told, settings_text(make_spec()))
        assert told.stat().st_size > plain.stat().st_size
        np.testing.assert_array_equal(decoded(plain, output_format), decoded(told, output_format))


def decoded(path: Path, output_format: OutputFormat) -> np.ndarray:
    """Return the frames of a file."""
    if output_format is OutputFormat.MP4:
        return read_video(path).frames
    if output_format is OutputFormat.PNG:
        with ZipFile(path) as archive:
            return np.stack([np.asarray(Image.open(BytesIO(archive.read(name)))) for name in archive.namelist()])
    with Image.open(path) as image:
        frames = []
        for number in range(image.n_frames):  # type: ignore[attr-defined]  # of an animation
            image.seek(number)
            frames.append(np.asarray(image.convert("RGB")))
    return np.stack(frames)
