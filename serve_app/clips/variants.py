"""Variants of a video (thumbnail, sprite sheet), drawn from its file.

Example:
    data = draw(path, Variant.THUMBNAIL, num_frames=41)  # bytes of a WebP; blocking
"""

import io
from math import ceil, sqrt
from pathlib import Path

from PIL import Image

from serve_app.clips.reading import NotAVideo, each_frame
from serve_app.spec import Variant

MEDIA_TYPE = "image/webp"
_THUMBNAIL_PIXELS = 320  # of the longer side
_TILE_PIXELS = 160
_MOST_TILES = 25
_QUALITY = 80


def draw(path: Path, variant: Variant, num_frames: int) -> bytes:
    """Return a variant of the video at `path`, which has `num_frames` frames. Blocking; holds one frame at a time.

    Raises:
        NotAVideo: it cannot be decoded.
        OSError: it cannot be read.
    """
    if variant is Variant.THUMBNAIL:
        (tile,) = _tiles(path, [num_frames // 2], _THUMBNAIL_PIXELS)
        return _encoded(tile)
    count = min(num_frames, _MOST_TILES)
    chosen = [number * num_frames // count for number in range(count)]
    return _encoded(_sheet(_tiles(path, chosen, _TILE_PIXELS)))


def _tiles(path: Path, chosen: list[int], pixels: int) -> list[Image.Image]:
    """Return the chosen frames, scaled so that the longer side has `pixels`."""
    tiles: list[Image.Image] = []
    for number, frame in enumerate(each_frame(path)):
        if number == chosen[len(tiles)]:
            tile = Image.fromarray(frame)
            tile.thumbnail((pixels, pixels))
            tiles.append(tile)
            if len(tiles) == len(chosen):
                return tiles
    raise NotAVideo(f"{path.name} has fewer frames than were stored")


def _sheet(tiles: list[Image.Image]) -> Image.Image:
    width, height = tiles[0].size
    columns = ceil(sqrt(len(tiles)))
    sheet = Image.new("RGB", (columns * width, ceil(len(tiles) / columns) * height))
    for number, tile in enumerate(tiles):
        sheet.paste(tile, (number % columns * width, number // columns * height))
    return sheet


def _encoded(image: Image.Image) -> bytes:
    data = io.BytesIO()
    image.save(data, "WEBP", quality=_QUALITY)
    return data.getvalue()
