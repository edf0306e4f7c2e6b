"""Image files of every accepted format and mode, made by Pillow from seeded noise."""

import io
from typing import Any

import numpy as np
from PIL import Image

# Formats, and the modes that Pillow writes in each.
MODES: dict[str, tuple[str, ...]] = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "JPEG": ("L", "RGB", "CMYK"),
    "GIF": ("1", "L", "P", "RGB", "RGBA"),
    "WEBP": ("L", "RGB", "RGBA", "P"),
    "BMP": ("1", "L", "P", "RGB", "RGBA"),
}
KINDS = [(form, mode) for form, modes in MODES.items() for mode in modes]
_ORIENTATION = 0x0112


def picture(mode: str, width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth blobs and noise, transparent here and there where the mode allows it."""
    noise = np.random.default_rng(seed)
    if mode == "I;16":
        return Image.fromarray(noise.integers(0, 1 << 16, (height, width), dtype=np.uint16))
    coarse = noise.integers(0, 256, (3, 4, 4), dtype=np.uint8)
    rgba = Image.fromarray(coarse, "RGBA").resize((width, height), Image.Resampling.BICUBIC)
    if mode == "P":
        palette = rgba.convert("RGB").quantize(16)
        palette.info["transparency"] = bytes([0] * 8 + [255] * 8)
        return palette
    return rgba.convert(mode)


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    """Return the bytes of the file."""
    if orientation := options.pop("orientation", None):
        exif = Image.Exif()
        exif[_ORIENTATION] = orientation
        options["exif"] = exif
    if form == "GIF" and image.mode == "P":
        image.info["transparency"] = 3  # one colour; PNG has an alpha for each
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def file(form: str = "PNG", mode: str = "RGB", width: int = 90, height: int = 60, **options: Any) -> bytes:
    """Return a small image file."""
    return saved(picture(mode, width, height, options.pop("seed", 0)), form, **options)


def animation(form: str, frames: int, width: int = 20, height: int = 12) -> bytes:
    """Return an animation whose frames differ."""
    first, *others = [picture("RGB", width, height, seed) for seed in range(frames)]
    return saved(first, form, save_all=True, append_images=others, duration=50)
