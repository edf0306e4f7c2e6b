"""Images within a request: base64 (RFC 4648), bare or as a data URL (RFC 2397)."""

import base64
import binascii
import re
import string
from urllib.parse import unquote

from serve_app.images.header import ImageLimits, ImageUnusable, check_size

_SPACE = str.maketrans("", "", string.whitespace)
_DATA_URL = re.compile(r"\s*data:([^,]{0,200}),", re.IGNORECASE)
_EXPANSION = 4 / 3  # characters of base64 for a byte
_SLACK = 1024  # the start of a data URL, padding


def most_characters(limits: ImageLimits) -> int:
    """Return how long a text can be that holds an image within `limits`, but for spaces."""
    return int(limits.max_bytes * _EXPANSION) + _SLACK


def is_data_url(text: str) -> bool:
    """Return whether `text` is a data URL."""
    return text.lstrip()[:5].lower() == "data:"


def decode(text: str, limits: ImageLimits) -> bytes:
    """Return the bytes in `text`. The media type of a data URL is ignored; the bytes decide the format.

    Raises:
        ImageUnusable: it is no base64, or holds more bytes than `limits` allows.
    """
    data = _decoded(_payload(text), limits)
    check_size(len(data), limits)
    return data


def _payload(text: str) -> str:
    if not is_data_url(text):
        return text
    found = _DATA_URL.match(text)
    if found is None or not found[1].strip().lower().endswith(";base64"):
        raise ImageUnusable("it is a data URL without base64; write data:image/png;base64,...")
    content = text[found.end() :]
    # A data URL may spell what stands for something else in other URLs, as in %2B for +.
    return unquote(content, errors="replace") if "%" in content else content


def _decoded(text: str, limits: ImageLimits) -> bytes:
    compact = text.translate(_SPACE) if any(mark in text for mark in string.whitespace) else text
    if len(compact) > most_characters(limits):
        check_size(limits.max_bytes + 1, limits)
    try:
        return base64.b64decode(compact, validate=True)
    except (binascii.Error, ValueError):
        reason = "it is neither base64, nor a data URL, nor an address, nor a path with a file name's ending"
        raise ImageUnusable(f"{reason}; send one of these, whole") from None
