"""Previews of a running render: drawn on the device, compressed in another thread, stored by the next heartbeat.

Example:
    previews = Previews(attempt, thread)
    pipeline.render(spec, RenderInputs(loras, previews=previews.offer), on_step)

The interval is a hundred times the duration of one preview, so they add less than one percent to a render.
"""

import io
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

from PIL import Image

from deployments.attempt import Attempt
from deployments.pipeline import Frames
from serve_app.jobs.records import Preview

logger = logging.getLogger("ray.serve.wan")

_FIRST_S = 0.3  # after the first step; a render that ends sooner needs no preview
_LEAST_S = 1.0  # shortest interval, to bound the writes to the job store
_SHARE = 100
_QUALITY = 60


class Previews:
    """Paces and compresses the previews of one attempt."""

    def __init__(self, attempt: Attempt, thread: ThreadPoolExecutor) -> None:
        """Take the attempt, and the thread that compresses."""
        self._attempt = attempt
        self._thread = thread
        self._due: float | None = None

    def offer(self, step: int, draw: Callable[[], Frames | None]) -> None:
        """Take a preview after `step` steps, if one is due. Called in the device's thread."""
        now = monotonic()
        if self._due is None:
            self._due = now + _FIRST_S
        if now < self._due:
            return
        frames = draw()
        self._due = monotonic() + max(_LEAST_S, _SHARE * (monotonic() - now))
        if frames is not None:
            self._thread.submit(self._compress, step, frames)

    def _compress(self, step: int, frames: Frames) -> None:
        spec = self._attempt.claim.spec
        try:
            image = animated(frames, seconds=spec.num_frames / spec.fps)
        except Exception:  # a render continues without previews
            logger.exception("a preview was not made")
            return
        self._attempt.preview = Preview(step, image)


def animated(frames: Frames, *, seconds: float) -> bytes:
    """Return frames [F, H, W, 3] as an animated WebP of that duration, which loops forever."""
    first, *others = (Image.fromarray(frame) for frame in frames)
    data = io.BytesIO()
    duration = max(1, round(1000 * seconds / len(frames)))
    first.save(data, "WEBP", save_all=True, append_images=others, duration=duration, loop=0, quality=_QUALITY, method=0)
    return data.getvalue()
