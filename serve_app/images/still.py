"""Headers of formats with one picture: JPEG (ITU-T T.81) and BMP (the BITMAPINFOHEADER family)."""

import re
import struct

from serve_app.images.header import Header, ImageFormat, ImageLimits, ImageUnusable

# Segments before the first scan, and scans, of a JPEG. Cameras write about 20 segments, and progressive encoders about
# 10 scans. Each scan is a pass over the whole picture: with thousands of empty ones, a small file costs hours.
_MOST_SEGMENTS = 1_000
_MOST_FILL = 64  # bytes before a marker
_MOST_SCANS = 100

_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # start of frame; the three others are tables and reserved
_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})  # markers without a length
_MARK, _SOS, _EOI = 0xFF, 0xDA, 0xD9
# What ends the data of a scan, in which FF is followed by 00 or by a restart marker.
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")

_CORE_HEADER, _INFO_HEADER = 12, 40  # sizes of a BMP's two kinds of header, in bytes
_UNCOMPRESSED = frozenset({0, 3})  # BI_RGB, BI_BITFIELDS


def jpeg(data: bytes, _limits: ImageLimits) -> Header:
    """Return the header of a JPEG: the frame that the segments before its first scan announce."""
    at, size = 2, None
    for _ in range(_MOST_SEGMENTS):
        marker, at = _marker(data, at)
        if marker == _SOS:
            break
        if marker in _ALONE:
            continue
        if marker in _SOF:
            if size is not None:
                raise ImageUnusable("it is a damaged JPEG: it announces its size twice; save it again")
            size = struct.unpack_from(">HH", data, at + 3)
        at = _behind(data, at)
    else:
        raise ImageUnusable(f"it is a JPEG with {_MOST_SEGMENTS} segments before its picture; save it again")
    if size is None:
        raise ImageUnusable("it is a damaged JPEG: it announces no size; save it again")
    _check_scans(data, at)
    height, width = size
    return Header(ImageFormat.JPEG, width, height)


def _check_scans(data: bytes, at: int) -> None:
    """Raise ImageUnusable if the picture has too many scans or segments; `at` is behind the marker of its first scan.

    It ends with its EOI marker: what lies behind, such as the film of a phone's "motion photo", is no part of it.
    """
    scans, segments = 1, 0
    at = _behind(data, at)
    while found := _NEXT_MARKER.search(data, at):
        marker, at = data[found.end() - 1], found.end()
        if marker == _EOI:
            return
        scans += marker == _SOS
        segments += 1
        if scans > _MOST_SCANS or segments > _MOST_SEGMENTS:
            raise ImageUnusable(f"it is a JPEG with more than {_MOST_SCANS} scans; save it again as a baseline JPEG")
        at = at if marker in _ALONE else _behind(data, at)


def _behind(data: bytes, at: int) -> int:
    """Return where the segment ends whose length stands at `at`."""
    (length,) = struct.unpack_from(">H", data, at)
    return at + max(int(length), 2)


def _marker(data: bytes, at: int) -> tuple[int, int]:
    """Return the marker at `at`, behind any fill bytes, and where it ends."""
    end = at
    while data[end] == _MARK and end - at <= _MOST_FILL:
        end += 1
    marker = data[end]
    if end == at or marker == _MARK:
        raise ImageUnusable("it is a damaged JPEG: its segments do not follow one another; save it again")
    if marker == _EOI:
        raise ImageUnusable("it is a JPEG without a picture; send another")
    return marker, end + 1


def bmp(data: bytes, _limits: ImageLimits) -> Header:
    """Return the header of an uncompressed BMP. A negative height only says that its first row is the top one."""
    (size,) = struct.unpack_from("<I", data, 14)
    if size == _CORE_HEADER:
        width, height = struct.unpack_from("<HH", data, 18)
        return Header(ImageFormat.BMP, width, height)
    if size < _INFO_HEADER:
        raise ImageUnusable("it is a BMP of an unknown kind; save it as PNG")
    width, height, _planes, _bits, compression = struct.unpack_from("<iiHHI", data, 18)
    if compression not in _UNCOMPRESSED:
        raise ImageUnusable("it is a compressed BMP; save it as PNG")
    return Header(ImageFormat.BMP, abs(width), abs(height))
