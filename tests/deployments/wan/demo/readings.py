"""What a video shows, measured from its frames alone: colour, direction and shape of the one thing that moves.

Nothing here comes from the code that drew the training videos.
"""

import colorsys
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

HUES = {"red": 0, "yellow": 50, "green": 135, "cyan": 187, "blue": 230, "purple": 280}  # degrees
_DIFFERENT = 70  # from the background, summed over the colours of 0 to 255
_WHITE = 175  # the least of a white pixel's colours
_MIDDLE = 4  # pixels around the centre of the thing, well inside of a core
_TINTED = 40  # by how much one colour of a sky outweighs another
_MOVED = 10  # pixels from the first to the last frame
_TRIANGLE = 0.65  # upper half over lower half: a third in a triangle, one in the others
_SQUARE = 0.885  # share of its bounding box: pi / 4 in a circle, all in a square


@dataclass(frozen=True)
class Reading:
    """What was measured."""

    colour: str
    shape: str
    direction: str
    core: float  # how white the middle is: the least of its colours, 0 to 1


def read(frames: npt.NDArray[np.uint8]) -> Reading | None:
    """Measure `frames` [frames, height, width, 3]; None if nothing stands out from the background."""
    pixels = frames.astype(int)
    edge = np.concatenate([pixels[:, 0], pixels[:, -1], pixels[:, :, 0], pixels[:, :, -1]], axis=1).reshape(-1, 3)
    covered = np.abs(pixels - np.median(edge, axis=0)).sum(-1) > _DIFFERENT
    if not all(frame.sum() > 50 for frame in covered):
        return None
    white = covered & (pixels.min(-1) > _WHITE)
    return Reading(
        colour=_colour(pixels[covered & ~white]),
        shape=_shape(covered),
        direction=_direction(covered),
        core=float(np.mean([_core(*frame) for frame in zip(pixels, covered, strict=True)])),
    )


def _core(pixels: npt.NDArray[np.int_], covered: npt.NDArray[np.bool_]) -> float:
    y, x = np.argwhere(covered).mean(0)
    rows, columns = np.indices(covered.shape)
    middle = np.hypot(rows - y, columns - x) < _MIDDLE
    return float(pixels[middle].min(-1).mean() / 255)


def _colour(pixels: npt.NDArray[np.int_]) -> str:
    red, green, blue = np.median(pixels, axis=0) / 255
    hue = colorsys.rgb_to_hsv(red, green, blue)[0] * 360
    return min(HUES, key=lambda name: abs((hue - HUES[name] + 180) % 360 - 180))


def _shape(covered: npt.NDArray[np.bool_]) -> str:
    """Tell a triangle by its light upper half, a circle from a square by how much of its bounding box it fills."""
    if np.median([_upper_half(frame) for frame in covered]) < _TRIANGLE:
        return "triangle"
    return "circle" if np.median([_fill(frame) for frame in covered]) < _SQUARE else "square"


def _upper_half(frame: npt.NDArray[np.bool_]) -> float:
    """Return what the thing has above the middle of its height, as a share of what it has below."""
    rows = frame.sum(1)
    rows = rows[rows > 1]
    middle = len(rows) // 2
    return float(rows[:middle].sum() / rows[-middle:].sum())


def _fill(frame: npt.NDArray[np.bool_]) -> float:
    rows, columns = (np.flatnonzero(frame.sum(axis) > 1) for axis in (1, 0))
    return float(frame.sum() / ((np.ptp(rows) + 1) * (np.ptp(columns) + 1)))


def _direction(covered: npt.NDArray[np.bool_]) -> str:
    (first_y, first_x), (last_y, last_x) = (np.argwhere(frame).mean(0) for frame in (covered[0], covered[-1]))
    x, y = last_x - first_x, last_y - first_y
    if max(abs(x), abs(y)) < _MOVED:
        return "still"
    if abs(x) > abs(y):
        return "right" if x > 0 else "left"
    return "down" if y > 0 else "up"


def has_dawn(frames: npt.NDArray[np.uint8]) -> bool:
    """Tell whether the sky goes from night blue at the top to peach at the bottom, whatever is in front of it."""
    top, bottom = (np.median(frames[:, rows].astype(int), axis=(0, 1, 2)) for rows in (slice(0, 4), slice(-4, None)))
    return bool(top[2] > top[0] + _TINTED and bottom[0] > bottom[2] + _TINTED and bottom.sum() > top.sum())
