"""H.264 in MP4, as browsers play it: yuv420p, BT.709 limited range and tagged so, index at the front."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

import imageio_ffmpeg

from deployments.media.embedding import ffmpeg_metadata
from deployments.pipeline import Frames
from serve_app.errors import OutputNotWritten

# Measured on synthetic 832x480x41 clips (a zoom with and without grain, dark gradients, a test card), CPU time:
# veryfast at CRF 14 holds 46 dB PSNR and VMAF 96 on the zooms (95 is commonly taken as transparent) in 0.5-0.8 s.
# medium takes 1.3-1.9 s for one VMAF point more; ultrafast takes 0.2-0.3 s, but up to twice the bytes at CRF 18.
# At 64x64x5 veryfast is the cheapest preset of all: 17 ms, of which 14 ms are ffmpeg starting and doing nothing.
_PRESET = "veryfast"
_CRF = 14

# x264's bytes depend on its thread count, so the count comes from the clip and not from the machine. A clip of
# less than ten frames of 480p is done before threads could help.
_THREADS_FROM_PIXELS = 4_000_000
_THREADS = 4

# By default ffmpeg converts with BT.601's matrix and writes no tags, so that players guess the matrix from the size.
# `setparams` adds primaries and transfer, which raw RGB lacks; with `bitexact` all CPUs give the same bytes.
_FILTERS = (
    "scale=out_color_matrix=bt709:out_range=tv:flags=bicubic+accurate_rnd+full_chroma_inp+bitexact,"
    "format=yuv420p,"
    "setparams=range=tv:colorspace=bt709:color_primaries=bt709:color_trc=bt709"
)

_ADDRESS = re.compile(r"^\[\S+ @ 0x[0-9a-f]+\] ", re.MULTILINE)  # "[out#0/mp4 @ 0x55d0c8e1a340] "


def write_mp4(frames: Frames, fps: int, path: Path, text: str) -> None:
    """Encode `frames` [F, H, W, 3], contiguous, at exactly `fps` frames per second; `text` becomes its comment.

    Raises:
        OutputNotWritten: ffmpeg is missing or failed; the message ends with what it said.
    """
    with _comment(path, text) as metadata:
        result = subprocess.run(  # noqa: S603  every argument is ours
            _command(frames.shape, fps, path, metadata),
            input=frames.reshape(-1).data,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
        )
    if result.returncode:
        said = _ADDRESS.sub("", result.stderr.decode(errors="replace")).strip()
        raise OutputNotWritten(
            f"ffmpeg ended with status {result.returncode}: {said}", {"exit_status": result.returncode}
        )


@contextmanager
def _comment(path: Path, text: str) -> Iterator[list[str]]:
    """Yield the arguments that give the file its comment, from a metadata file beside it; none if there is none."""
    if not text:
        yield []
        return
    with NamedTemporaryFile("w", dir=path.parent, suffix=".ffmetadata", encoding="utf-8") as file:
        file.write(ffmpeg_metadata(text))
        file.flush()
        yield ["-f", "ffmetadata", "-i", f"file:{file.name}", "-map_metadata", "1"]


def _command(shape: tuple[int, ...], fps: int, path: Path, metadata: list[str]) -> list[str]:
    count, height, width, _ = shape
    threads = str(_THREADS if count * height * width >= _THREADS_FROM_PIXELS else 1)
    general = ["-hide_banner", "-loglevel", "error", "-y", "-filter_threads", threads]
    # `-r`, because `-framerate` is rounded to a common rate nearby: 119 became 120.
    picture = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(fps)]
    codec = ["-c:v", "libx264", "-preset", _PRESET, "-crf", str(_CRF), "-threads", threads]
    # Bit-exact: no version strings or dates in the container. Fast start: the index before the pictures.
    container = ["-fflags", "+bitexact", "-flags:v", "+bitexact", "-movflags", "+faststart", "-f", "mp4"]
    target = f"file:{path}"  # so that no part of the path is parsed as a protocol
    return [_ffmpeg(), *general, *picture, "-i", "pipe:0", *metadata, "-vf", _FILTERS, *codec, *container, target]


def _ffmpeg() -> str:
    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        raise OutputNotWritten(str(error)) from error
