"""Out of memory: the error for a render that no plan holds, with the largest size that would fit."""

from collections.abc import Sequence

from serve_app.errors import OutOfMemory
from serve_app.settings import OffloadMode
from serve_app.spec import RenderSpec


def out_of_memory(
    device: str, spec: RenderSpec, tried: Sequence[OffloadMode], fitting: tuple[int, int] | None, reason: str
) -> OutOfMemory:
    """Return the error for a render that did not fit under any mode in `tried`.

    `fitting` is the largest width and height that would, with as many frames; None if nothing tells.
    """
    modes = [mode.value for mode in tried]
    advice = "" if fitting is None else f"; {fitting[0]}x{fitting[1]} with {spec.num_frames} frames should fit"
    largest = None if fitting is None else {"width": fitting[0], "height": fitting[1], "num_frames": spec.num_frames}
    return OutOfMemory(
        f"{device} ran out of memory for {size_of(spec)} with offload: {', then '.join(modes)}; "
        f"ask for fewer pixels or frames{advice}",
        {
            "width": spec.width,
            "height": spec.height,
            "num_frames": spec.num_frames,
            "offload": modes,
            "largest_that_fits": largest,
            "reason": reason,
        },
    )


def size_of(spec: RenderSpec) -> str:
    """Return the size of the video, in words."""
    return f"{spec.width}x{spec.height}, {spec.num_frames} frames"
