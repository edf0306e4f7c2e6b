"""Synthetic training data, second half: scenes drawn as anti-aliased video tensors by signed distance functions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from deployments.wan.demo.training.scenes import (
    BACKGROUNDS,
    COLOURS,
    DIRECTIONS,
    FRAMES,
    SHAPES,
    SIZE,
    SIZES,
    SPEEDS,
    Scene,
    Style,
)

_STYLES = tuple(Style)
_DAWN_TOP, _DAWN_BOTTOM = (18, 24, 80), (250, 178, 140)
_CORE = 0.45  # radius of the white core, of the shape's radius
_CORE_EDGE = 2.0  # pixels over which it fades


@dataclass(frozen=True)
class Drawings:
    """Scenes as numbers on the device that draws them; the first axis of each tensor counts scenes."""

    shape: Tensor  # [n] index
    style: Tensor  # [n] index
    colour: Tensor  # [n, 3] in -1..1, as are all colours
    background: Tensor  # [n, 3]
    radius: Tensor  # [n] pixels
    start: Tensor  # [n, 2] pixels, x and y
    travel: Tensor  # [n, 2] pixels from the first frame to the last
    dawn: Tensor  # [1, 3, 1, height, 1] the sky of that style

    def __len__(self) -> int:
        return len(self.shape)

    def draw(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Draw the scenes at the indices `chosen`.

        Returns:
            Video [n, 3, frames, height, width] in -1..1, and how much of each pixel the shape covers [n, 1, ...].
        """
        shape, style = (_broadcast(values[chosen]) for values in (self.shape, self.style))
        radius = _broadcast(self.radius[chosen])
        x, y = self._offsets(chosen)
        covered = (0.5 - _distance(shape, x, y, radius)).clamp(0, 1)
        behind = torch.where(style == _STYLES.index(Style.DAWN), self.dawn, _broadcast(self.background[chosen]))
        video = torch.lerp(behind, _broadcast(self.colour[chosen]), covered)
        core = (0.5 - (torch.hypot(x, y) - _CORE * radius) / _CORE_EDGE).clamp(0, 1)
        return torch.lerp(video, torch.ones_like(video), core * (style == _STYLES.index(Style.GLOW))), covered

    def _offsets(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Return x [n, 1, frames, 1, width] and y [n, 1, frames, height, 1], in pixels from the centre of the shape."""
        device = self.start.device
        time = torch.linspace(0, 1, FRAMES, device=device)
        centre = self.start[chosen, :, None] + self.travel[chosen, :, None] * time  # [n, 2, frames]
        place = torch.arange(SIZE, device=device) + 0.5
        x = place - centre[:, 0, :, None]
        y = place - centre[:, 1, :, None]
        return x[:, None, :, None, :], y[:, None, :, :, None]


def drawings(scenes: list[Scene], device: torch.device) -> Drawings:
    """Turn scenes into the numbers that draw them."""

    def tensor(values: Sequence[float] | Sequence[tuple[float, ...]]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=device)

    travels = [tuple(SPEEDS[scene.speed] * step for step in DIRECTIONS[scene.direction]) for scene in scenes]
    return Drawings(
        shape=torch.tensor([SHAPES.index(scene.shape) for scene in scenes], device=device),
        style=torch.tensor([_STYLES.index(scene.style) for scene in scenes], device=device),
        colour=tensor([COLOURS[scene.colour] for scene in scenes]) / 127.5 - 1,
        background=tensor([BACKGROUNDS[scene.background] for scene in scenes]) / 127.5 - 1,
        radius=tensor([SIZES[scene.size] for scene in scenes]),
        start=tensor([scene.start for scene in scenes]),
        travel=tensor(travels),
        dawn=_dawn(device),
    )


def _broadcast(values: Tensor) -> Tensor:
    """Return [n] or [n, channels] as [n, 1 or channels, 1, 1, 1]."""
    return values.reshape(len(values), -1, 1, 1, 1)


def _distance(shape: Tensor, x: Tensor, y: Tensor, radius: Tensor) -> Tensor:
    """Return the signed distance in pixels to the outline, negative inside.

    The square has nearly the circle's area; the triangle is equilateral and points up.
    """
    circle = torch.hypot(x, y) - radius
    square = torch.maximum(x.abs(), y.abs()) - 0.88 * radius
    triangle = torch.maximum(y, math.sqrt(0.75) * x.abs() - 0.5 * y) - 0.6 * radius
    return torch.where(shape == 0, circle, torch.where(shape == 1, square, triangle))


def _dawn(device: torch.device) -> Tensor:
    top, bottom = (
        torch.tensor(colour, device=device).view(3, 1, 1, 1) / 127.5 - 1 for colour in (_DAWN_TOP, _DAWN_BOTTOM)
    )
    return torch.lerp(top, bottom, torch.linspace(0, 1, SIZE, device=device).view(1, 1, SIZE, 1))[None]
