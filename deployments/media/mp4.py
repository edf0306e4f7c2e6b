"""H.264 in MP4, as browsers play it: yuv420p, BT.709 limited range and tagged so, index at the front."""

import subprocess
from pathlib import Path

import imageio_ffmpeg

from deployments.media.frames import Frames
from serve_app.errors import OutputNotWritten

# Measured on 832x480x41 clips (zoom with and without grain, dark gradients, test card), CPU time on one core:
# veryfast at CRF 14 holds 46 dB PSNR and VMAF 96 on the detailed clips (95 is commonly taken as transparent) in
# 0.4-0.7 s; medium needs 1.3-1.9 s for one VMAF point more; ultrafast needs 0.2-0.3 s but up to twice the bytes. At
# 64x64x5 veryfast is the cheapest of all presets, 3 ms above starting ffmpeg and doing nothing.
_PRESET = "veryfast"
_CRF = 14

# x264's bytes depend on its thread count, so the count comes from the clip and not from the machine. Below about
# a second of 480p, starting threads costs more than they give back.
_THREADS_FROM_PIXELS = 4_000_000
_THREADS = 4

# Left alone, ffmpeg would convert with BT.601's matrix and tag nothing, and players would guess from the size.
# setparams adds the primaries and the transfer, which scale does not know; bitexact keeps SIMD variants equal.
_FILTERS = (
    "scale=out_color_matrix=bt709:out_range=tv:flags=bicubic+accurate_rnd+full_chroma_inp+bitexact,"
    "format=yuv420p,"
    "setparams=range=tv:colorspace=bt709:color_primaries=bt709:color_trc=bt709"
)


def write_mp4(frames: Frames, fps: int, path: Path) -> None:
    """Encode `frames` [F, H, W, 3], contiguous, at exactly `fps` frames per second; size untouched.

    Raises:
        OutputNotWritten: ffmpeg is missing or failed; the message ends with what it said.
    """
    result = subprocess.run(  # noqa: S603  every argument is ours
        _command(frames, fps, path),
        input=memoryview(frames.reshape(-1)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
    )
    if result.returncode:
        said = result.stderr.decode(errors="replace").strip()
        raise OutputNotWritten(
            f"ffmpeg ended with status {result.returncode}: {said}", {"exit_status": result.returncode}
        )


def _command(frames: Frames, fps: int, path: Path) -> list[str]:
    _, height, width, _ = frames.shape
    threads = str(_THREADS if frames.size // 3 >= _THREADS_FROM_PIXELS else 1)
    source = [
        "-f",
        "rawvideo",
        "-pix_fmt",
        "rgb24",
        "-s",
        f"{width}x{height}",
        "-framerate",
        str(fps),
        "-i",
        "pipe:0",
    ]
    codec = ["-c:v", "libx264", "-preset", _PRESET, "-crf", str(_CRF), "-threads", threads]
    # Bit-exact: no version strings or dates in the container. Fast start: the index before the pictures.
    container = ["-fflags", "+bitexact", "-flags:v", "+bitexact", "-movflags", "+faststart", "-f", "mp4"]
    return [
        *[_ffmpeg(), "-hide_banner", "-loglevel", "error", "-y", "-filter_threads", threads],
        *source,
        *["-vf", _FILTERS],
        *codec,
        *container,
        # `file:` so that no character of the path is taken for a protocol.
        f"file:{path}",
    ]


def _ffmpeg() -> str:
    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        raise OutputNotWritten(str(error)) from error
