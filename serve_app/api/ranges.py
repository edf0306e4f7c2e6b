"""Range requests (RFC 9110, section 14): a file in parts, and errors in the documented shape.

Example:
    return RangedFile(path, stat_result=stat, media_type="video/mp4")

Starlette serves the ranges. But its errors are plain text, and it accepts malformed ranges (`bytes=+0-`).
"""

import re
from typing import Any

from fastapi.responses import FileResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import Message, Receive, Scope, Send

from serve_app.api.error_handlers import response_of
from serve_app.echo import cut
from serve_app.errors import HeaderInvalid, RangeNotSatisfiable, ServiceError

_UNIT = "bytes"
_RANGE = re.compile(r"[0-9]+-[0-9]*|-[0-9]+")
_SHOWN = 100  # characters of a header that is repeated


class RangedFile(FileResponse):
    """A file, or the requested ranges of it. A range in another unit than bytes is ignored, as RFC 9110 says."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file, or the error."""
        wanted = Headers(scope=scope).get("range")
        if wanted is None:
            await super().__call__(scope, receive, send)
            return
        unit, _, ranges = wanted.partition("=")
        if "=" in wanted and unit.strip().lower() != _UNIT:
            await super().__call__(_without_range(scope), receive, send)
        elif not _well_formed(ranges):
            await response_of(_malformed(wanted))(scope, receive, send)
        else:
            await super().__call__(scope, receive, _Refusing(scope, receive, send, wanted))


class _Refusing:
    """A `send` that turns Starlette's refusals of a range into this service's."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, wanted: str) -> None:
        self._scope, self._receive, self._send, self._wanted = scope, receive, send, wanted
        self._refused = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] >= HeaderInvalid.status:
            self._refused = True
            await self._refuse(message)
        elif not self._refused:
            await self._send(message)

    async def _refuse(self, message: Message) -> None:
        length = Headers(raw=message["headers"]).get("content-range")
        response = response_of(_malformed(self._wanted) if length is None else _beyond(self._wanted, length))
        if length is not None:
            response.headers["Content-Range"] = length
        await response(self._scope, self._receive, self._send)


def _well_formed(ranges: str) -> bool:
    parts = [part.strip() for part in ranges.split(",")]
    return any(parts) and all(_RANGE.fullmatch(part) for part in parts if part)


def _without_range(scope: Scope) -> Scope:
    headers = MutableHeaders(raw=list(scope["headers"]))
    del headers["range"]
    return {**scope, "headers": headers.raw}


def _malformed(wanted: str) -> ServiceError:
    return HeaderInvalid(
        f"Range {cut(wanted, _SHOWN)!r} is not one that can be answered; write bytes=0-99, bytes=100- or bytes=-100",
        {"header": "Range"},
    )


def _beyond(wanted: str, length: str) -> ServiceError:
    details: dict[str, Any] = {"header": "Range", "content_range": length}
    return RangeNotSatisfiable(f"Range {cut(wanted, _SHOWN)!r} lies beyond the end of the file ({length})", details)
