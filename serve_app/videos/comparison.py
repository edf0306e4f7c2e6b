"""Differences between two clips: size, length, frame rate, and the pictures (PSNR; shift in time; mirrored; reversed).

Example:
    difference = compare(read_clip(Path("preview.webp")), read_clip(Path("output.mp4")))
    difference.mean_psnr, difference.shift  # 43.1, 0

PSNR is 10 log10(255^2 / MSE) over RGB. The two thresholds are measured on the demo checkpoint (128x128, 17 frames, 8
prompts and seeds) against an MP4: the same frames as WebP or lossless have 39.4 dB and more, one changed setting has 17
to 41 dB (medians 23 to 38), another seed or prompt 11 to 29 dB (medians 16 and 18). docs/cli.md has the table, which
tests/benchmarks/compare_thresholds.py prints.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from serve_app.clips.reading import Clip, Frames

SAME_DB = 35.0
"""Two encodings of the same frames."""

ALIKE_DB = 18.5
"""The same scene, made otherwise: between another recipe and another seed."""

_BEST_DB = 100.0  # of equal frames, whose PSNR would be infinite
_THUMBNAIL = 64  # pixels of the longer side: enough to see what moves where
_MOST_SHIFT = 8  # frames
_CLEARLY_DB = 3.0  # half the error: a shifted, mirrored or reversed clip must fit at least this much better
_FITS_DB = 25.0  # and its PSNR must be at least this: thumbnails of other scenes may be similar by chance

Gray = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How `second` differs from `first`. Pictures are compared at the size of the first, frame by frame."""

    sizes: tuple[tuple[int, int], tuple[int, int]]
    lengths: tuple[int, int]
    rates: tuple[float | None, float | None]
    psnr: tuple[float, ...]  # dB of each frame that both have; 100 where equal
    shift: int  # frames by which the second one is late; 0 if no shift fits clearly better
    mirrored: str | None  # "horizontally", "vertically", or None
    reversed_in_time: bool

    @property
    def mean_psnr(self) -> float:
        """Return the mean over the frames, dB."""
        return float(np.mean(self.psnr))

    @property
    def alike_until(self) -> int:
        """Return the number of similar frames at the beginning."""
        return next((number for number, value in enumerate(self.psnr) if value < ALIKE_DB), len(self.psnr))


def compare(first: Clip, second: Clip) -> Difference:
    """Return how `second` differs from `first`."""
    length = min(len(first.frames), len(second.frames))
    fitted = resized(second.frames[:length], first.size)
    one, other = _thumbnails(first.frames), _thumbnails(resized(second.frames, first.size))
    plain = _closeness(one[:length], other[:length])
    return Difference(
        sizes=(first.size, second.size),
        lengths=(len(first.frames), len(second.frames)),
        rates=(first.fps, second.fps),
        psnr=tuple(psnr(a, b) for a, b in zip(first.frames[:length], fitted, strict=True)),
        shift=_shift(one, other, plain),
        mirrored=_mirrored(one[:length], other[:length], plain),
        reversed_in_time=_fits_better(_closeness(one[:length], other[:length][::-1]), plain),
    )


def psnr(one: Frames, other: Frames) -> float:
    """Return the peak signal-to-noise ratio of two frames, dB; 100 of equal ones."""
    return _decibel(float(np.mean(np.square(one.astype(np.float32) - other.astype(np.float32)))))


def resized(frames: Frames, size: tuple[int, int]) -> Frames:
    """Return frames at (width, height), bicubic; as they are if they have that size."""
    if (frames.shape[2], frames.shape[1]) == size:
        return frames
    return np.stack([np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC)) for frame in frames])


def _thumbnails(frames: Frames) -> Gray:
    height, width = frames.shape[1:3]
    scale = min(1.0, _THUMBNAIL / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    gray = [Image.fromarray(frame).convert("L").resize(size, Image.Resampling.BOX) for frame in frames]
    return np.stack([np.asarray(picture, np.float32) for picture in gray])


def _closeness(one: Gray, other: Gray) -> float:
    """Return the PSNR of two thumbnails' frames as a whole, dB."""
    return _decibel(float(np.mean(np.square(one - other))))


def _decibel(error: float) -> float:
    return min(_BEST_DB, 10 * float(np.log10(255**2 / error))) if error > 0 else _BEST_DB


def _fits_better(found: float, plain: float) -> bool:
    return found > max(plain + _CLEARLY_DB, _FITS_DB)


def _shift(one: Gray, other: Gray, plain: float) -> int:
    """Return by how many frames the second clip is late, if that fits clearly better than no shift."""
    most = min(_MOST_SHIFT, min(len(one), len(other)) // 2)
    found = {shift: _closeness(*_overlap(one, other, shift)) for shift in range(-most, most + 1) if shift}
    best = max(found, key=lambda shift: found[shift], default=0)
    return best if best and _fits_better(found[best], plain) else 0


def _overlap(one: Gray, other: Gray, shift: int) -> tuple[Gray, Gray]:
    """Return the frames that show the same if the second clip is `shift` frames late."""
    one, other = (one, other[shift:]) if shift > 0 else (one[-shift:], other)
    length = min(len(one), len(other))
    return one[:length], other[:length]


def _mirrored(one: Gray, other: Gray, plain: float) -> str | None:
    ways = {"horizontally": other[:, :, ::-1], "vertically": other[:, ::-1]}
    return next((name for name, turned in ways.items() if _fits_better(_closeness(one, turned), plain)), None)
