"""Control images in the output store, beside the outputs of their request: kept once for each content.

Example:
    inputs = RequestInputs(outputs, request_id)
    await inputs.keep(image)        # before the request is stored
    await inputs.discard()          # where it was not stored after all
    fitted = await read_fitted(outputs, request_id, spec)   # on the Generator
"""

import asyncio
import hashlib
import logging
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from serve_app.errors import ControlImageLost, OutputNotWritten, OutputStorageUnavailable
from serve_app.images.decoding import UPRIGHT, ImageFacts, Pixels, pixels
from serve_app.images.header import ImageLimits, ImageUnusable
from serve_app.images.resolver import ResolvedImage
from serve_app.jobs.records import input_name
from serve_app.outputs import NotAsStored, OutputStore
from serve_app.results import ImageUse
from serve_app.spec import InputImage, RenderSpec

logger = logging.getLogger("ray.serve.wan")

_MEDIA_TYPE = "application/octet-stream"  # these files are never served
# No limits: an accepted image passed the limits of that time and is verified by its hash. The args may be stricter now.
_ACCEPTED = ImageLimits(sys.maxsize, sys.maxsize, sys.maxsize, sys.maxsize)


class RequestInputs:
    """The images of one request that is about to be stored."""

    def __init__(self, outputs: OutputStore, request_id: str) -> None:
        self._outputs = outputs
        self.request_id = request_id
        self.names: set[str] = set()  # in the output store

    async def keep(self, image: ResolvedImage) -> None:
        """Store the bytes of an image under the request, unless they are there already.

        Raises:
            OutputStorageUnavailable: it cannot be stored now.
        """
        name = input_name(self.request_id, image.sha256)
        if name in self.names:
            return
        self.names.add(name)
        try:
            with tempfile.TemporaryDirectory() as directory:
                path = Path(directory, "image")
                await asyncio.to_thread(path.write_bytes, image.data)
                await self._outputs.put(name, path, _MEDIA_TYPE)
        except (OutputNotWritten, OSError) as error:
            raise OutputStorageUnavailable("the control image cannot be stored now; try again later") from error

    async def discard(self) -> None:
        """Remove the stored images; a failure is logged."""
        try:
            await self._outputs.delete(sorted(self.names))
        except OSError as error:
            logger.warning("images that no request refers to stay behind: %s: %s", sorted(self.names), error)


@dataclass(frozen=True, slots=True)
class FittedImage:
    """An image in the size of its video, and how it was fitted."""

    pixels: Pixels
    use: ImageUse


async def read_fitted(outputs: OutputStore, request_id: str, spec: RenderSpec) -> FittedImage | None:
    """Return the accepted image of `spec`; None if it has none. Decoding does not block the event loop.

    Raises:
        ControlImageLost: its file is gone, or holds other bytes than those that were accepted.
        OSError: the output store cannot be read.
    """
    image = spec.image
    if image is None:
        return None
    try:
        data = await outputs.read(input_name(request_id, image.sha256))
    except FileNotFoundError:
        raise _lost(image, "is gone") from None
    except NotAsStored as error:
        raise _lost(image, f"was replaced: {error}") from error
    return await asyncio.to_thread(_fitted, data, image, spec)


def _fitted(data: bytes, image: InputImage, spec: RenderSpec) -> FittedImage:
    if hashlib.sha256(data).hexdigest() != image.sha256:
        raise _lost(image, "was replaced by other bytes")
    try:
        found, facts = pixels(data, image.fit, spec.width, spec.height, _ACCEPTED)
    except ImageUnusable as error:
        raise _lost(image, f"can no longer be read: {error}") from error
    return FittedImage(found, _use(image, facts))


def _use(image: InputImage, facts: ImageFacts) -> ImageUse:
    return ImageUse(
        sha256=image.sha256,
        fit=image.fit,
        format=facts.format,
        width=facts.width,
        height=facts.height,
        frames=facts.frames,
        alpha_dropped=facts.has_alpha,
        orientation_ignored=None if facts.orientation == UPRIGHT else facts.orientation,
    )


def _lost(image: InputImage, what: str) -> ControlImageLost:
    return ControlImageLost(
        f"the control image that was kept with the request {what}; send the request again", {"sha256": image.sha256}
    )
