"""Clips to encode, and the reading back of what was written: decoded by ffmpeg, colours by BT.709's own formula."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from deployments.pipeline import Frames

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()

sizes = st.integers(4, 9).map(lambda n: 16 * n)
counts = st.integers(1, 9)
rates = st.integers(1, 120)


def noise(count: int = 5, height: int = 64, width: int = 64) -> Frames:
    """Return a clip whose every frame differs from every other."""
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)


def patches() -> Frames:
    """Return one saturated colour a frame, wide enough for 4:2:0 not to matter."""
    primaries = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255), (255, 0, 255)]
    others = [(0, 0, 0), (128, 128, 128), (255, 255, 255), (200, 30, 90)]
    return np.stack([np.full((64, 64, 3), colour, np.uint8) for colour in primaries + others])


@dataclass(frozen=True)
class Video:
    """What ffmpeg says about a file, its frames as RGB (unrounded) and their times in seconds."""

    stream: str
    frames: NDArray[np.float64]
    times: list[float]


def read_video(path: Path) -> Video:
    """Decode `path` completely; fails on anything that ffmpeg complains about."""
    report = _run("-i", f"file:{path}", "-vf", "showinfo", "-f", "null", "-").stderr.decode()
    stream = next(line for line in report.splitlines() if "Video:" in line)
    size = re.search(r", (\d+)x(\d+)", stream)
    assert size
    width, height = map(int, size.groups())
    raw = _run("-v", "error", "-i", f"file:{path}", "-f", "rawvideo", "-pix_fmt", "yuv420p", "-")
    assert raw.stderr == b""
    times = [float(time) for time in re.findall(r"pts_time:([\d.]+)", report)]
    return Video(stream, _rgb(np.frombuffer(raw.stdout, np.uint8), height, width), times)


def _rgb(data: NDArray[np.uint8], height: int, width: int) -> NDArray[np.float64]:
    """Convert yuv420p planes to RGB [F, H, W, 3] by BT.709, limited range (black 16, white 235, chroma 16..240)."""
    luma, quarter = height * width, height * width // 4
    planes = data.reshape(-1, luma + 2 * quarter).astype(np.float64)
    chroma = planes[:, luma:].reshape(-1, 2, height // 2, width // 2).repeat(2, axis=2).repeat(2, axis=3)
    y = (planes[:, :luma].reshape(-1, height, width) - 16) / 219
    cb, cr = np.moveaxis((chroma - 128) / 224, 1, 0)
    red, blue = y + 1.5748 * cr, y + 1.8556 * cb
    green = (y - 0.2126 * red - 0.0722 * blue) / 0.7152
    return 255 * np.stack([red, green, blue], axis=-1).clip(0, 1)


def _run(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([FFMPEG, "-hide_banner", *arguments], capture_output=True, check=True)
