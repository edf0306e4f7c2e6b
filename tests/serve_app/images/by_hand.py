"""Image files that Pillow reads and does not write: PNGs of every colour type, depth and interlacing; odd BMPs.

What they show is noise: a decoder of the right kind makes the same of it as any other.
"""

import struct
import zlib
from collections.abc import Iterator

import numpy as np

_GREY, _RGB, _PALETTE, _GREY_ALPHA, _RGBA = 0, 2, 3, 4, 6
_SAMPLES = {_GREY: 1, _RGB: 3, _PALETTE: 1, _GREY_ALPHA: 2, _RGBA: 4}
_DEPTHS = {_GREY: (1, 2, 4, 8, 16), _RGB: (8, 16), _PALETTE: (1, 2, 4, 8), _GREY_ALPHA: (8, 16), _RGBA: (8, 16)}
# First column and row of each of the seven passes of Adam7, and the steps to the next ones (PNG, 8.2).
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_WHOLE = ((0, 0, 1, 1),)

# Colour type, bits of a sample, whether it is interlaced, whether it has a tRNS chunk.
PNG_KINDS = [
    (colour, depth, interlaced, transparent)
    for colour, depths in _DEPTHS.items()
    for depth in depths
    for interlaced in (False, True)
    for transparent in (False, True)
    if not (transparent and colour in (_GREY_ALPHA, _RGBA))
]

# Bits of a pixel, bytes of the header (12: OS/2, 40: Windows 3, 108 and 124: later ones), whether the top row is first.
BMP_KINDS = [
    (bits, header, top_first)
    for header in (12, 40, 108, 124)
    for bits in ((1, 4, 8, 24) if header == 12 else (1, 4, 8, 16, 24, 32))
    for top_first in ((False,) if header == 12 else (False, True))
]


def png(kind: tuple[int, int, bool, bool], width: int, height: int, seed: int = 0) -> bytes:
    """Return a PNG of that kind, with a gamma and a text beside it."""
    colour, depth, interlaced, transparent = kind
    noise = np.random.default_rng(seed)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    chunks = [(b"IHDR", header), (b"gAMA", struct.pack(">I", 45455)), (b"tEXt", b"Title\0noise")]
    if colour == _PALETTE:
        chunks.append((b"PLTE", noise.bytes(3 << depth)))
    if transparent:
        chunks.append((b"tRNS", noise.bytes(1 << depth) if colour == _PALETTE else bytes(2 * _SAMPLES[colour])))
    rows = b"".join(_rows(noise, width, height, depth * _SAMPLES[colour], _PASSES if interlaced else _WHOLE))
    chunks += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def _rows(
    noise: np.random.Generator, width: int, height: int, bits: int, passes: tuple[tuple[int, int, int, int], ...]
) -> Iterator[bytes]:
    for left, top, across, down in passes:
        columns, rows = -((left - width) // across), -((top - height) // down)
        if columns > 0:
            for _ in range(rows):
                yield b"\0" + noise.bytes((columns * bits + 7) // 8)  # 0: no filter


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def bmp(kind: tuple[int, int, bool], width: int, height: int, seed: int = 0) -> bytes:
    """Return an uncompressed BMP of that kind."""
    bits, header_bytes, top_first = kind
    noise = np.random.default_rng(seed)
    tall = -height if top_first else height
    if header_bytes == 12:
        header, entry = struct.pack("<IHHHH", 12, width, height, 1, bits), 3
    else:
        header, entry = struct.pack("<IiiHHIIiiII", header_bytes, width, tall, 1, bits, 0, 0, 0, 0, 0, 0), 4
        header = header.ljust(header_bytes, b"\0")
    table = noise.bytes(entry << bits) if bits <= 8 else b""
    rows = noise.bytes((width * bits + 31) // 32 * 4 * height)
    offset = 14 + len(header) + len(table)
    return struct.pack("<2sIHHI", b"BM", offset + len(rows), 0, 0, offset) + header + table + rows
