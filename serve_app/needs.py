"""GPU memory that renders need besides weights (activations): what was measured, by size and speed.

Example:
    key = NeedKey.of(spec)
    known = {key: 12_000_000_000}  # bytes in tensors at the peak, from the job store
"""

import math
from dataclasses import dataclass
from typing import Self

from serve_app.spec import RenderSpec, Speed

_PIXEL_STEP = 1.05  # frames whose areas differ by less than this share what was measured


@dataclass(frozen=True, slots=True)
class NeedKey:
    """Renders that need alike: decoding goes by pixels and frames, denoising by both, and kernels by the speed."""

    speed: Speed
    pixel_class: int  # logarithm of width x height
    num_frames: int

    @classmethod
    def of(cls, spec: RenderSpec) -> Self:
        """Return the key of a render."""
        return cls.of_size(spec.width, spec.height, spec.num_frames, spec.speed)

    @classmethod
    def of_size(cls, width: int, height: int, num_frames: int, speed: Speed) -> Self:
        """Return the key of renders of that size, in pixels and frames."""
        return cls(speed, round(math.log(width * height, _PIXEL_STEP)), num_frames)

    @property
    def pixels(self) -> float:
        """Return the pixels of a frame, in the middle of the class."""
        return float(_PIXEL_STEP**self.pixel_class)
