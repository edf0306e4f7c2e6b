"""Headers of formats that may hold an animation: PNG (with APNG), GIF89a and WebP (RIFF). Frames are counted."""

import struct

from serve_app.images.header import Header, ImageFormat, ImageLimits, ImageUnusable, too_many_frames

# Decoders read the blocks of a file one by one, in Python. So the number of blocks is limited, far above what encoders
# write: PNGs have chunks of 8 KiB and more, GIFs have sub-blocks of 255 bytes, except the last one of each frame.
_MOST_CHUNKS = 50_000
_IHDR_BYTES = 13
_GIF_BYTES_PER_BLOCK = 64
_GIF_FREE_BLOCKS = 10_000
_MOST_BLOCKS_BEFORE = 4_096  # sub-blocks of a GIF before its first picture; comments are joined one by one

_EXTENSION, _PICTURE, _TRAILER = 0x21, 0x2C, 0x3B
_HAS_TABLE = 0x80
_ANIMATION = 0x02  # in the flags of VP8X
_LOSSY_SIZE = 0x3FFF  # 14 bits


def png(data: bytes, limits: ImageLimits) -> Header:
    """Return the header of a PNG; `acTL` says how many frames an APNG has."""
    length, kind, width, height = struct.unpack_from(">I4sII", data, 8)
    if kind != b"IHDR" or length != _IHDR_BYTES:
        raise ImageUnusable("it is a damaged PNG: it does not begin with its header; save it again")
    at, frames, has_picture = 8, 1, False
    for _ in range(_MOST_CHUNKS):
        if at + 8 > len(data):
            break
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"acTL" and not has_picture:
            (frames,) = struct.unpack_from(">I", data, at + 8)
        has_picture = has_picture or kind == b"IDAT"
        if kind == b"IEND":
            break  # what lies behind it is no part of the picture
        at += length + 12
    else:
        raise ImageUnusable(f"it is a PNG of more than {_MOST_CHUNKS} chunks; save it again")
    if not has_picture:
        raise ImageUnusable("it is a PNG without a picture; send the whole file")
    if frames > limits.max_frames:
        raise too_many_frames(limits)
    return Header(ImageFormat.PNG, width, height, max(frames, 1))


def gif(data: bytes, limits: ImageLimits) -> Header:
    """Return the header of a GIF: the size of the canvas, or of the first frame if that is larger."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at, frames, blocks = 13 + _table_bytes(flags), 0, 0
    most = len(data) // _GIF_BYTES_PER_BLOCK + _GIF_FREE_BLOCKS
    while at < len(data) and data[at] != _TRAILER:
        if data[at] == _EXTENSION:
            at, count = _skip_blocks(data, at + 2, most - blocks)
        elif data[at] == _PICTURE:
            left, top, columns, rows, flags = struct.unpack_from("<HHHHB", data, at + 1)
            if frames == 0:
                width, height = max(width, left + columns), max(height, top + rows)
            frames += 1
            at, count = _skip_blocks(data, at + 11 + _table_bytes(flags), most - blocks)
        else:
            at, count = at + 1, 1  # decoders look for the next block, byte by byte
        blocks += count
        if frames > limits.max_frames:
            raise too_many_frames(limits)
        if blocks > (most if frames else _MOST_BLOCKS_BEFORE):
            raise ImageUnusable("it is a GIF cut into too many small blocks; save it again")
    if frames == 0:
        raise ImageUnusable("it is a GIF without a picture; send the whole file")
    return Header(ImageFormat.GIF, width, height, frames)


def _table_bytes(flags: int) -> int:
    """Return the size of the colour table that a GIF's flags announce."""
    return 3 << (flags & 0b111) + 1 if flags & _HAS_TABLE else 0


def _skip_blocks(data: bytes, at: int, most: int) -> tuple[int, int]:
    """Return where the sub-blocks at `at` end, and their number; stop after one more than `most`."""
    count = 0
    while at < len(data) and data[at] and count <= most:
        at += data[at] + 1
        count += 1
    return at + 1, count


def webp(data: bytes, limits: ImageLimits) -> Header:
    """Return the header of a WebP: lossy (VP8), lossless (VP8L), or extended (VP8X), which counts as its canvas."""
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (1 + int.from_bytes(_bytes(data, at, 3), "little") for at in (24, 27))
        return Header(ImageFormat.WEBP, width, height, _webp_frames(data, limits) if data[20] & _ANIMATION else 1)
    if kind == b"VP8 ":
        if _bytes(data, 23, 3) != b"\x9d\x01\x2a":
            raise ImageUnusable("it is a damaged WebP: its picture has no start code; save it again")
        width, height = struct.unpack_from("<HH", data, 26)
        return Header(ImageFormat.WEBP, width & _LOSSY_SIZE, height & _LOSSY_SIZE)
    if kind == b"VP8L":
        (packed,) = struct.unpack_from("<I", data, 21)
        return Header(ImageFormat.WEBP, (packed & _LOSSY_SIZE) + 1, (packed >> 14 & _LOSSY_SIZE) + 1)
    raise ImageUnusable("it is a WebP without a picture; send the whole file")


def _webp_frames(data: bytes, limits: ImageLimits) -> int:
    at, frames = 12, 0
    (size,) = struct.unpack_from("<I", data, 4)
    end = min(len(data), 8 + size)  # decoders read no further
    for _ in range(_MOST_CHUNKS):
        if at + 8 > end:
            return max(frames, 1)
        kind, length = struct.unpack_from("<4sI", data, at)
        frames += kind == b"ANMF"
        if frames > limits.max_frames:
            raise too_many_frames(limits)
        at += 8 + length + length % 2
    raise ImageUnusable(f"it is a WebP of more than {_MOST_CHUNKS} chunks; save it again")


def _bytes(data: bytes, at: int, count: int) -> bytes:
    """Return `count` bytes from `at`.

    Raises:
        IndexError: the data ends before.
    """
    if at + count > len(data):
        raise IndexError
    return data[at : at + count]
