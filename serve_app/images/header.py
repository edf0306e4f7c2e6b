"""Image headers, parsed before a decoder sees the file: format (magic number), size in pixels, number of frames.

Example:
    read_header(data, readers, ImageLimits())  # Header(ImageFormat.PNG, width=640, height=480, frames=1)

Decoders allocate the size that a header announces, and read all blocks of a file. So both are limited here. This stops
decompression bombs, headers of 65,535 x 65,535 pixels, endless animations, and files of a million empty blocks.
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from serve_app.problems import first_problem

_MIB = 2**20


class ImageFormat(StrEnum):
    """The accepted formats. Each needs one decoder, which is attack surface for hostile bytes, so there are few."""

    PNG = "png"
    JPEG = "jpeg"
    GIF = "gif"
    WEBP = "webp"
    BMP = "bmp"


class ImageUnusable(Exception):
    """The bytes are not an image that this service takes; `str` says why and what to do."""


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """Limits of an image: bytes of its file, pixels of its area, pixels of a side, frames."""

    max_bytes: int = 20 * _MIB
    max_pixels: int = 40_000_000
    max_side: int = 16_384
    max_frames: int = 1_000


@dataclass(frozen=True, slots=True)
class Header:
    """The values in the header of a file. `frames` is above 1 for an animation."""

    format: ImageFormat
    width: int
    height: int
    frames: int = 1


Reader = Callable[[bytes, ImageLimits], Header]  # raises ImageUnusable, or struct.error if the bytes end early

_ACCEPTED = "send a PNG, JPEG, WebP, GIF or BMP"
_FOREIGN: tuple[tuple[bytes, str], ...] = (
    (b"%PDF", "a PDF"),
    (b"%!PS", "PostScript (EPS)"),
    (b"\xc5\xd0\xd3\xc6", "PostScript (EPS)"),
    (b"II*\0", "a TIFF"),
    (b"MM\0*", "a TIFF"),
    (b"8BPS", "a Photoshop document"),
    (b"\0\0\1\0", "an icon"),
    (b"\0\1\0\0", "a font"),
    (b"OTTO", "a font"),
    (b"wOF", "a font"),
    (b"PK", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\xff\x0a", "a JPEG XL"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000"),
    (b"\x1a\x45\xdf\xa3", "a video (Matroska, WebM)"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself"),
)
_LEADING = 512  # bytes of a text in which its kind shows


def check_size(count: int, limits: ImageLimits) -> None:
    """Raise ImageUnusable if a file of `count` bytes is empty or too large."""
    problem = first_problem(
        {
            f"it is empty; {_ACCEPTED}": count == 0,
            f"it has more than the {limits.max_bytes} bytes that this service takes; send a smaller one": (
                count > limits.max_bytes
            ),
        }
    )
    if problem is not None:
        raise ImageUnusable(problem)


def read_header(data: bytes, readers: Mapping[ImageFormat, Reader], limits: ImageLimits) -> Header:
    """Return the header of the file `data`, checked against `limits`; the cost is bounded by `limits.max_bytes`.

    Raises:
        ImageUnusable: it is of no accepted format, exceeds a limit, or its header is cut off.
    """
    check_size(len(data), limits)
    kind = _format(data)
    if kind is None:
        raise ImageUnusable(f"it is {_described(data)}; {_ACCEPTED}")
    try:
        header = readers[kind](data, limits)
    except (struct.error, IndexError):
        raise ImageUnusable(f"its {kind.upper()} header ends early; send the whole file") from None
    _check(header, limits)
    return header


def media_type_of(data: bytes) -> str:
    """Return the content type of an image file, by its first bytes."""
    found = _format(data)
    return "application/octet-stream" if found is None else f"image/{found.value}"


def _format(data: bytes) -> ImageFormat | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return ImageFormat.WEBP
    magic = {
        b"\x89PNG\r\n\x1a\n": ImageFormat.PNG,
        b"\xff\xd8\xff": ImageFormat.JPEG,
        b"GIF87a": ImageFormat.GIF,
        b"GIF89a": ImageFormat.GIF,
        b"BM": ImageFormat.BMP,
    }
    return next((kind for start, kind in magic.items() if data.startswith(start)), None)


def _check(header: Header, limits: ImageLimits) -> None:
    size = f"{header.width} x {header.height} pixels"
    smaller = "; send a smaller one"
    problem = first_problem(
        {
            f"its header says {size}, which is no picture": min(header.width, header.height) < 1,
            f"it has {size}, and a side may have {limits.max_side}{smaller}": (
                max(header.width, header.height) > limits.max_side
            ),
            f"it has {size}, which is more than the {limits.max_pixels} that this service takes{smaller}": (
                header.width * header.height > limits.max_pixels
            ),
        }
    )
    if problem is not None:
        raise ImageUnusable(problem)


def too_many_frames(limits: ImageLimits) -> ImageUnusable:
    """Return the fault of an animation with more frames than `limits` allows; only the first would be used."""
    return ImageUnusable(f"it is an animation of more than {limits.max_frames} frames; send its first frame alone")


def _described(data: bytes) -> str:
    """Return what a file of no accepted format is, by its first bytes."""
    for magic, name in _FOREIGN:
        if data.startswith(magic):
            return name
    if data[4:8] == b"ftyp":
        return {b"avif": "an AVIF", b"avis": "an AVIF"}.get(data[8:12]) or (
            "a HEIC" if data[8:12] in (b"heic", b"heix", b"mif1", b"hevc") else "a video (MP4)"
        )
    text = data[:_LEADING].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in text:
        return "an SVG, which is a program to draw an image"
    if text.startswith((b"<!doctype html", b"<html")):
        return "a web page"
    return "of no format that this service knows"
