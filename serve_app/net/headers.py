"""Response headers of untrusted servers (RFC 9110): parsers that return None for anything malformed.

Example:
    >>> natural("42"), natural("9" * 5000)
    (42, None)
    >>> content_range("bytes 0-99/1234")
    ContentRange(start=0, stop=100, total=1234)
"""

import re
import time
from dataclasses import dataclass
from email.utils import mktime_tz, parsedate_tz

_DIGITS = 18  # a size with this many digits fits into 64 bits, and into file systems
_NATURAL = re.compile(rf"[0-9]{{1,{_DIGITS}}}")
_RANGE = re.compile(rf"bytes ([0-9]{{1,{_DIGITS}}})-([0-9]{{1,{_DIGITS}}})/([0-9]{{1,{_DIGITS}}}|\*)")
_LONGEST_DATE = 100  # characters


@dataclass(frozen=True, slots=True)
class ContentRange:
    """Bytes [start, stop) of a file; `total` is its size, None if the server does not know it."""

    start: int
    stop: int
    total: int | None


def natural(text: str | None) -> int | None:
    """Return the natural number in `text`; None if it is something else, or has more than 18 digits."""
    return int(text) if text is not None and _NATURAL.fullmatch(text) else None


def content_range(text: str | None) -> ContentRange | None:
    """Return what a Content-Range header says; None if it contradicts itself, or is something else."""
    found = _RANGE.fullmatch(text or "")
    if found is None:
        return None
    start, last, total = int(found[1]), int(found[2]), natural(found[3])
    if last < start or (total is not None and total <= last):
        return None
    return ContentRange(start, last + 1, total)


def retry_after_s(text: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks for, given as such or as a date; None if it is neither."""
    seconds = natural((text or "").strip())
    if seconds is not None:
        return float(seconds)
    try:
        date = parsedate_tz((text or "")[:_LONGEST_DATE])
        return None if date is None else max(0.0, mktime_tz(date) - time.time())
    except (ValueError, OverflowError, TypeError, IndexError):  # a month or a year that no calendar has
        return None
