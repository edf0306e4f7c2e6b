"""Decoders: a video file into frames (ffmpeg for MP4, WebM and MOV; Pillow for animated WebP, GIF, PNG; ZIP of stills).

Example:
    clip = read_clip(Path("preview.webp"))
    clip.frames.shape, clip.fps  # (41, 480, 832, 3), 16.0
"""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, cast
from zipfile import BadZipFile, ZipFile

import imageio_ffmpeg
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageSequence

Frames = npt.NDArray[np.uint8]  # [frames, height, width, 3], RGB

MOST_BYTES = 8 << 30
"""Of decoded frames: 1,000 frames of 1080p fit, and a decompression bomb does not."""

_PICTURES = (b"RIFF", b"GIF8", b"\x89PNG", b"\xff\xd8\xff")
_ZIP = b"PK\x03\x04"
_RATE = re.compile(r"Video: .*?, ([\d.]+) fps")


class NotAVideo(ValueError):
    """The file holds no frames that can be read; the message names it and says why."""


@dataclass(frozen=True)
class Clip:
    """A decoded video. `fps` is None if the format has no rate (stills in a ZIP)."""

    path: Path
    frames: Frames
    fps: float | None

    @property
    def size(self) -> tuple[int, int]:
        """Return (width, height) in pixels."""
        return self.frames.shape[2], self.frames.shape[1]


def read_clip(path: Path) -> Clip:
    """Return the frames of a file, whose format is recognised by its first bytes, not by its name.

    Raises:
        NotAVideo: it cannot be decoded, has no frames or more than MOST_BYTES.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(4)
    try:
        if start == _ZIP:
            return Clip(path, _stacked(path, _stills(path)), None)
        if start in _PICTURES or start[:3] == _PICTURES[-1]:
            return _animation(path)
        return _film(path)
    except (OSError, RuntimeError, SyntaxError, BadZipFile, Image.DecompressionBombError) as error:
        reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise NotAVideo(f"{path} cannot be decoded: {reason[0]}") from error


def each_frame(path: Path) -> Iterator[Frames]:
    """Yield the frames of a file one by one [height, width, 3], so that the memory for one is enough.

    Raises:
        NotAVideo: it cannot be decoded.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(4)
    try:
        if start == _ZIP:
            yield from _stills(path)
        elif start in _PICTURES or start[:3] == _PICTURES[-1]:
            with Image.open(path) as image:
                yield from (np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image))
        else:
            with TemporaryFile() as said, _decoding(path, said) as pictures:
                yield from pictures
    except (OSError, RuntimeError, SyntaxError, BadZipFile, Image.DecompressionBombError) as error:
        raise NotAVideo(f"{path.name} cannot be decoded: {type(error).__name__}") from error


@contextmanager
def _decoding(path: Path, said: IO[bytes]) -> Iterator[Iterator[Frames]]:
    """Run ffmpeg on a file while the block runs, and yield the frames as they come; `said` gets ffmpeg's messages."""
    # `passthrough`: every frame of the file once, where ffmpeg would repeat or drop some for a steady rate.
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-nostdin", "-i", f"file:{path}", "-map", "0:v:0"]
    command += ["-fps_mode", "passthrough", "-c:v", "ppm", "-f", "image2pipe", "-"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said) as ffmpeg:  # noqa: S603  all ours
        try:
            yield _pictures_of(cast(IO[bytes], ffmpeg.stdout))
        finally:
            ffmpeg.kill()


def _film(path: Path) -> Clip:
    with TemporaryFile() as said:
        with _decoding(path, said) as pictures:
            frames = _collected(path, pictures)
        said.seek(0)
        notes = said.read().decode(errors="replace")
    if not frames:
        raise NotAVideo(f"{path} cannot be decoded: {notes.strip().splitlines()[-1]}")
    rate = _RATE.search(notes)
    return Clip(path, np.stack(frames), float(rate[1]) if rate else None)


def _pictures_of(stream: IO[bytes]) -> Iterator[Frames]:
    """Yield the frames of a stream of PPM pictures, as ffmpeg writes them: P6, size and depth on a line each."""
    while stream.readline() == b"P6\n":
        width, height = map(int, stream.readline().split())
        stream.readline()
        data = stream.read(width * height * 3)
        if len(data) == width * height * 3:
            yield np.frombuffer(data, np.uint8).reshape(height, width, 3)


def _animation(path: Path) -> Clip:
    durations: list[float] = []

    def frames() -> Iterator[Frames]:
        with Image.open(path) as image:
            for frame in ImageSequence.Iterator(image):
                yield np.asarray(frame.convert("RGB"))
                durations.append(float(frame.info.get("duration", 0)))

    pictures = _stacked(path, frames())
    total_ms = sum(durations)
    return Clip(path, pictures, 1000 * len(durations) / total_ms if total_ms else None)


def _stills(path: Path) -> Iterator[Frames]:
    with ZipFile(path) as archive:
        for name in sorted(name for name in archive.namelist() if name.lower().endswith(".png")):
            with archive.open(name) as file, Image.open(file) as image:
                yield np.asarray(image.convert("RGB"))


def _stacked(path: Path, frames: Iterator[Frames]) -> Frames:
    kept = _collected(path, frames)
    if not kept:
        raise NotAVideo(f"{path} holds no frames")
    return np.stack(kept)


def _collected(path: Path, frames: Iterator[Frames]) -> list[Frames]:
    kept: list[Frames] = []
    for frame in frames:
        kept.append(frame)
        if frame.nbytes * len(kept) > MOST_BYTES:
            raise NotAVideo(f"{path} has more than {MOST_BYTES >> 30} GiB of frames; cut it shorter")
        if frame.shape != kept[0].shape:
            raise NotAVideo(f"{path} holds pictures of several sizes; they are no frames of one video")
    return kept
