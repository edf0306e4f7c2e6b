"""Decoding of control images (Pillow): RGB, alpha, EXIF orientation, animations; resizing to the video (LANCZOS).

Example:
    facts = inspect(data, ImageLimits())                # decodes it once; raises ImageUnusable
    first = pixels(data, Fit.CROP, 832, 480, limits)    # uint8 [480, 832, 3]

The reference server calls `convert("RGB")`, which drops alpha without compositing, ignores the EXIF orientation, takes
the first frame of an animation, and stretches by `resize((width, height), LANCZOS)`. `ImageFacts` says which of these
apply to an image.
"""

import io
import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps
from PIL.ExifTags import Base

from serve_app.images.animated import gif, png, webp
from serve_app.images.header import Header, ImageFormat, ImageLimits, ImageUnusable, read_header
from serve_app.images.still import bmp, jpeg
from serve_app.spec import Fit

Pixels = npt.NDArray[np.uint8]  # [height, width, 3], RGB

_READERS = {
    ImageFormat.PNG: png,
    ImageFormat.JPEG: jpeg,
    ImageFormat.GIF: gif,
    ImageFormat.WEBP: webp,
    ImageFormat.BMP: bmp,
}
UPRIGHT = 1  # the EXIF orientation of an image that need not be turned
_ORIENTATIONS = range(1, 9)
_DEEP = ("I", "F")  # how the names of modes with more than 8 bits begin


def silence_pillow() -> None:
    """Ignore the warnings of Pillow's decoders, for the whole process.

    Python remembers every text that it has warned of, and an EXIF block may cause 65,535 different ones: so each such
    file would fill the log, and some megabytes of memory for good.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")


silence_pillow()


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """The properties of an image, among them those that the video does not show."""

    format: ImageFormat
    width: int  # pixels, as stored
    height: int
    frames: int
    has_alpha: bool
    orientation: int  # EXIF; 1 is upright
    is_deep: bool  # grey with more than 8 bits, of which `convert` cuts off what is above 255


def inspect(data: bytes, limits: ImageLimits) -> ImageFacts:
    """Decode the first frame of the image `data` completely, and return its properties.

    Raises:
        ImageUnusable: it is of no accepted format, exceeds a limit, or is damaged or cut off.
    """
    return _decoded(data, limits)[1]


def pixels(data: bytes, fit: Fit, width: int, height: int, limits: ImageLimits) -> tuple[Pixels, ImageFacts]:
    """Return the image in the size of its video, and its properties.

    Raises:
        ImageUnusable: see `inspect`.
    """
    image, facts = _decoded(data, limits)
    return np.asarray(fitted(image, fit, (width, height))), facts


def fitted(image: Image.Image, fit: Fit, size: tuple[int, int]) -> Image.Image:
    """Return an RGB image in that size (width, height)."""
    if fit is Fit.STRETCH:
        return image.resize(size, Image.Resampling.LANCZOS)
    if fit is Fit.CROP:
        return ImageOps.fit(image, size, Image.Resampling.LANCZOS)
    return _padded(image, size)


def _padded(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return the whole image in the middle of a black one; `ImageOps.pad` fails if a side would round to 0."""
    scale = min(size[0] / image.width, size[1] / image.height)
    inner = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    canvas = Image.new("RGB", size)
    corner = (round((size[0] - inner[0]) * 0.5), round((size[1] - inner[1]) * 0.5))
    canvas.paste(image.resize(inner, Image.Resampling.LANCZOS), corner)
    return canvas


def _decoded(data: bytes, limits: ImageLimits) -> tuple[Image.Image, ImageFacts]:
    header = read_header(data, _READERS, limits)
    try:
        # Only the decoder for the format in the header: another one might read the same bytes differently.
        with Image.open(io.BytesIO(data), formats=(header.format,)) as image:
            if image.size != (header.width, header.height):
                raise ImageUnusable("its header contradicts itself; save it again")
            facts = _facts(image, header)
            image.load()
            # Else Pillow warns that the alpha of a palette is lost, which is said in the result instead.
            image.info.pop("transparency", None)
            return image.convert("RGB"), facts
    except ImageUnusable:
        raise
    except MemoryError:
        raise
    except Exception as error:
        # Decoders fed with damaged bytes raise nearly anything: OSError, SyntaxError, ValueError, EOFError, zlib.error.
        reason = f"it is a {header.format.upper()} that is damaged or cut off ({type(error).__name__})"
        raise ImageUnusable(f"{reason}; send the whole file") from error


def _facts(image: Image.Image, header: Header) -> ImageFacts:
    return ImageFacts(
        format=header.format,
        width=header.width,
        height=header.height,
        frames=header.frames,
        has_alpha=image.has_transparency_data,
        orientation=_orientation(image),
        is_deep=image.mode.startswith(_DEEP),
    )


def _orientation(image: Image.Image) -> int:
    try:
        found = image.getexif().get(Base.Orientation, UPRIGHT)
    except Exception:
        return UPRIGHT  # a damaged EXIF block says nothing, and the picture does not depend on it
    return found if found in _ORIENTATIONS else UPRIGHT
