"""Encoding of frames into a file (MP4, WebP, PNG), with a text in its metadata that says how it was made.

Example:
    encode(frames, fps=16, output_format=OutputFormat.MP4, path=Path("video.mp4"))  # frames: uint8 [F, H, W, 3]
"""

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np

from deployments.media.mp4 import write_mp4
from deployments.media.png import write_png_zip
from deployments.media.webp import write_webp
from deployments.pipeline import Frames
from serve_app.errors import OutputNotWritten
from serve_app.spec import OutputFormat

_WRITERS: Mapping[OutputFormat, Callable[[Frames, int, Path, str], None]] = MappingProxyType(
    {
        OutputFormat.MP4: write_mp4,
        OutputFormat.WEBP: write_webp,
        # Stills have no frame rate; the result that the API returns has it.
        OutputFormat.PNG: lambda frames, _fps, path, text: write_png_zip(frames, path, text),
    }
)


def encode(frames: Frames, fps: int, output_format: OutputFormat, path: Path, text: str = "") -> None:
    """Write `frames` to `path`, replacing what is there. Blocking: call it in a thread.

    The same frames and text give the same bytes. After an error no part of the file is left behind.

    Args:
        frames: uint8 [F, H, W, 3], RGB; at least one frame, H and W even.
        fps: Frames per second, 1..120.
        output_format: Container to write.
        path: The file; its directory exists. Not atomic: give a scratch path, then store that.
        text: The text of the metadata, one line; see `deployments.media.embedding`. Empty for none.

    Raises:
        OutputNotWritten: The encoder or the file system failed (full disk); the message says why.
        ValueError: `frames` is not of that shape and type.
    """
    _check(frames)
    try:
        _WRITERS[output_format](np.ascontiguousarray(frames), fps, path, text)
    except OSError as error:
        _discard(path)
        raise OutputNotWritten(
            f"the {output_format} file could not be written: {error.strerror or error}",
            {"output_format": output_format.value},
        ) from error
    except BaseException:
        _discard(path)
        raise


def _check(frames: Frames) -> None:
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:  # noqa: PLR2004
        raise ValueError(f"frames must be uint8 [F, H, W, 3], got {frames.dtype} {list(frames.shape)}")
    if frames.shape[1] % 2 or frames.shape[2] % 2:
        raise ValueError(f"height and width must be even for 4:2:0 video, got {list(frames.shape)}")


def _discard(path: Path) -> None:
    # The path itself may be the problem; the first error is the one to report.
    with contextlib.suppress(OSError):
        path.unlink()
