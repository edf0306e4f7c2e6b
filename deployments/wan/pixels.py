"""From the pipeline's video to the frames that are encoded."""

import numpy as np
import numpy.typing as npt

from deployments.pipeline import Frames
from serve_app.errors import RenderFailed
from serve_app.spec import RenderSpec


def to_pixels(video: npt.NDArray[np.float32], spec: RenderSpec) -> Frames:
    """0..1 to 0..255, rounded to the nearest as diffusers rounds PIL frames.

    Raises:
        RenderFailed: a number is not finite, or the shape is not the spec's.
    """
    expected = (spec.num_frames, spec.height, spec.width, 3)
    if video.shape != expected:
        raise RenderFailed(f"the pipeline gave frames of shape {video.shape}, expected {expected}")
    if not np.isfinite(video).all():
        raise RenderFailed(
            "the video has pixels that are not finite numbers; a LoRA with broken weights, or too high a multiplier "
            "for it, does that"
        )
    return (video * 255).round().astype(np.uint8)
