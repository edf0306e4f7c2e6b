"""A part of a file over HTTP: the request for it, and what the many ways to answer mean."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import mktime_tz, parsedate_tz

from serve_app.loras.formats.header import describe_wrong_format
from serve_app.loras.refusals import invalid
from serve_app.loras.sources.exchange import Exchange, Reply
from serve_app.loras.sources.faults import Transient
from serve_app.loras.sources.located import Part
from serve_app.loras.sources.wording import not_found, refused

OK, PARTIAL, UNSATISFIABLE = 200, 206, 416
_GONE = frozenset({404, 410})
_DENIED = frozenset({401, 403, 407, 451})
_BUSY = frozenset({408, 425, 429})
_SERVER_ERROR = 500
_PAGES = ("text/html", "application/xhtml+xml")
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_FILE_NAME = re.compile(r"""filename\*?=(?:UTF-8'[^']*')?"?([^";]+)"?""", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class WebPart(Part):
    """A part from a web server. `validator` is the entity tag, else the time of the last modification, else None."""

    is_range: bool  # the server gives parts; otherwise `start` is 0
    validator: str | None
    file_name: str | None  # as the server calls it


@contextmanager
def opened(
    exchange: Exchange, url: str, name: str, *, start: int = 0, stop: int | None = None, token: str | None = None
) -> Iterator[WebPart]:
    """Bytes [start, stop) of the file at `url`, or all from 0 where the server knows no ranges.

    `name` is for errors. `stop` None is the end. A file that ends at or before `start` is read from 0.

    Raises:
        Transient, Forbidden: see `Exchange.get`; also what a server says that is busy.
        LoraNotFound, LoraPathRefused, LoraInvalid: there is no file, or none that this client may have.
    """
    wanted = f"bytes={start}-{'' if stop is None else stop - 1}"
    with exchange.get(url, {"Range": wanted}, token) as reply:
        if reply.status != UNSATISFIABLE or start == 0:
            yield _read(reply, name, start)
            return
    with exchange.get(url, {}, token) as reply:
        yield _read(reply, name, 0)


def _read(reply: Reply, name: str, start: int) -> WebPart:
    _check_status(reply, name)
    _check_kind(reply, name)
    is_range = reply.status == PARTIAL
    total = _total(reply, start) if is_range else _natural(reply.headers.get("content-length"))
    return WebPart(
        start=start if is_range else 0,
        total=total,
        chunks=reply.chunks,
        is_range=is_range,
        validator=reply.headers.get("etag") or reply.headers.get("last-modified"),
        file_name=_file_name(reply.headers.get("content-disposition", "")),
    )


def _check_status(reply: Reply, name: str) -> None:
    status = reply.status
    if status in (OK, PARTIAL):
        return
    if status in _GONE:
        raise not_found(name)
    if status in _DENIED:
        raise refused(
            name,
            f"its server denies access ({status}); for the Hub, send hf_token of an account that may read the "
            "repository, and accept its conditions there if it is gated",
        )
    if status == UNSATISFIABLE:
        raise invalid(name, str(describe_wrong_format(b"")))
    fault = busy(status, reply.headers.get("retry-after", ""))
    raise fault or refused(name, f"its server answers {status}; check the address")


def busy(status: int, retry_after: str) -> Transient | None:
    """What to make of a `status` of a server that may answer better later, and of its Retry-After; None for others."""
    if status in _BUSY or status >= _SERVER_ERROR:
        return Transient(f"its server answers {status}", _retry_after(retry_after))
    return None


def _check_kind(reply: Reply, name: str) -> None:
    if reply.headers.get("content-type", "").strip().lower().startswith(_PAGES):
        raise invalid(name, str(describe_wrong_format(b"<html")))
    if reply.headers.get("content-encoding", "identity").lower() != "identity":
        raise refused(name, "its server sends it compressed, although asked not to; use another address")


def _total(reply: Reply, start: int) -> int | None:
    found = _CONTENT_RANGE.fullmatch(reply.headers.get("content-range", ""))
    if found is None or int(found[1]) != start:
        raise Transient("its server answers with another part of the file than was asked for")
    return _natural(found[3])


def _natural(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() else None


def _retry_after(text: str) -> float | None:
    seconds = _natural(text.strip())
    if seconds is not None:
        return float(seconds)
    date = parsedate_tz(text)
    return None if date is None else max(0.0, mktime_tz(date) - time.time())


def _file_name(disposition: str) -> str | None:
    found = _FILE_NAME.search(disposition)
    return None if found is None else found[1].strip()
