"""Request bodies as JSON: their media type, charset, compression and length are checked before anything is parsed.

Example:
    router = APIRouter(route_class=JsonRoute)

FastAPI reads a body of any length, of any type and as any encoding that it can guess, and says little of why it could
not. A `JsonRoute` stops reading at the arg `max_body_bytes`, also where a chunked body does not say how long it is, and
stops inflating gzip there.
"""

import asyncio
import json
import re
import zlib
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from email.message import Message
from functools import lru_cache
from typing import Any, NoReturn

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect

from serve_app.api.dependencies import Services
from serve_app.api.large_bodies import LargeBodies
from serve_app.echo import cut
from serve_app.errors import BodyDamaged, BodyTooLarge, BodyTooSlow, EncodingNotSupported, MediaTypeNotSupported
from serve_app.json_bounds import has_more_values

MOST_VALUES = 100_000  # of a body; a thousand prompts with every field have some 20,000. Parsing takes 50 ms at most
_LONGEST_LENGTH = 30  # digits of a Content-Length that are read; what is longer is too large in any case
_SHOWN = 100  # characters of a header that is repeated
_GZIP = ("gzip", "x-gzip")
_GZIP_WINDOW = 16 + zlib.MAX_WBITS  # has zlib read gzip's header and check sum
_CHARSETS = ("utf-8", "utf8", "us-ascii", "ascii")
_IS_JSON = re.compile(r"application/(json|.*\+json)")
_NUL = b"\0"  # in the first characters of JSON only where each has 2 or 4 bytes


class JsonRoute(APIRoute):
    """A route whose body is JSON, with errors that say what to do.

    Raises, before the endpoint is called:
        MediaTypeNotSupported, EncodingNotSupported: the headers, or the bytes themselves, are not those of JSON.
        BodyTooSlow: it did not arrive in time.
        BodyTooLarge: there is more of it than the service reads.
        TooManyBodies: others that are as large are being read.
        BodyDamaged: it is compressed, and cannot be decompressed.
        RequestValidationError: it is no JSON, or holds more values than any request.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler behind one that reads and parses the body."""
        handle = super().get_route_handler()

        async def read_and_handle(request: Request) -> Response:
            async with body_of(request) as body:
                return await handle(Parsed(request, body, await json_of(request, body)))

        return read_and_handle


class Parsed(Request):
    """A request whose body was read and parsed; FastAPI takes both from here."""

    def __init__(self, request: Request, body: bytes, content: Any, *, content_type: str | None = None) -> None:
        """`content_type` is said instead of the request's own, where the body was no JSON."""
        scope = request.scope
        if content_type is not None:
            others = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
            scope = {**scope, "headers": [*others, (b"content-type", content_type.encode())]}
        super().__init__(scope, request.receive)
        self._read, self._content = body, content

    async def body(self) -> bytes:
        """Return the body, decompressed."""
        return self._read

    async def json(self) -> Any:
        """Return what the body says."""
        return self._content


def is_form(headers: Headers) -> bool:
    """Return whether the body is said to be a multipart form."""
    return headers.get("content-type", "").lower().startswith("multipart/form-data")


@asynccontextmanager
async def body_of(request: Request, *, checks_type: bool = True) -> AsyncIterator[bytes]:
    """Hold the body in memory during the block, decompressed, within the service's limits.

    `checks_type` is off where the body may be no JSON.

    Raises:
        MediaTypeNotSupported, EncodingNotSupported, BodyTooSlow, BodyTooLarge, TooManyBodies, BodyDamaged: see
            `JsonRoute`.
    """
    services: Services = request.app.state.services
    bodies: LargeBodies = request.app.state.large_bodies
    with bodies.room() as take:
        body = await _read(request, services.max_body_bytes, services.plan.settings.body_timeout_s, take)
        if body and checks_type:
            _check_type(request.headers.get("content-type"))
        yield body


async def json_of(request: Request, body: bytes) -> Any:
    """Return what the JSON in `body` says, large ones in turn; None if it is empty. Raises as `parse` does."""
    bodies: LargeBodies = request.app.state.large_bodies
    async with bodies.turn(len(body)):
        return parse(body) if body else None


async def _read(request: Request, most: int, within_s: float, take: Callable[[int], None]) -> bytes:
    """Read and inflate at most `most` bytes in `within_s` seconds; `take` hears the bytes of each piece."""
    compressed = _is_gzip(request.headers.get("content-encoding", ""))
    if _announced(request.headers.get("content-length", "")) > most:
        raise _too_large(most)
    chunks = _within(request.stream(), most)
    pieces = _within(_inflated(chunks, most), most) if compressed else chunks
    try:
        async with asyncio.timeout(within_s):
            body = b"".join([piece async for piece in _taken(pieces, take)])
    except TimeoutError:
        raise BodyTooSlow(
            f"the body did not arrive within {within_s:g} seconds; send it again", {"body_timeout_s": within_s}
        ) from None
    except ClientDisconnect:
        raise BodyDamaged("the connection ended before the body did") from None
    return body


def parse(body: bytes) -> Any:
    """Return what the JSON in `body` says; a byte order mark in front is left out.

    Raises:
        EncodingNotSupported: it is not UTF-8.
        RequestValidationError: it is no JSON, with its byte offset; or it holds more values than any request.
    """
    if len(body) > 1 and _NUL in body[:2]:
        raise _not_utf8("it looks like UTF-16 or UTF-32")
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        found = f"byte 0x{body[error.start]:02x} at position {error.start} is none of UTF-8"
        raise _not_utf8(f"{found}; it may be Latin-1 or Windows-1252") from None
    if has_more_values(body, MOST_VALUES):
        _not_json("too_many_values", 0, f"JSON has more than {MOST_VALUES} values; send fewer prompts in one request")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        _not_json("json_invalid", error.pos, "JSON decode error")
    except RecursionError:
        _not_json("json_invalid", 0, "JSON is nested too deeply")
    except ValueError:  # Python reads no integer of more than 4,300 digits
        _not_json("json_invalid", 0, "JSON has a number of too many digits")


async def _within(chunks: AsyncIterator[bytes], most: int) -> AsyncIterator[bytes]:
    total = 0
    async for chunk in chunks:
        total += len(chunk)
        if total > most:
            raise _too_large(most)
        yield chunk


async def _taken(pieces: AsyncIterator[bytes], take: Callable[[int], None]) -> AsyncIterator[bytes]:
    async for piece in pieces:
        take(len(piece))
        yield piece


async def _inflated(chunks: AsyncIterator[bytes], most: int) -> AsyncIterator[bytes]:
    """Decompress, each time no more than one byte too much: a bomb never unfolds."""
    inflate = zlib.decompressobj(_GZIP_WINDOW)
    try:
        async for chunk in chunks:
            yield inflate.decompress(chunk, most + 1)
            if inflate.unused_data:
                raise BodyDamaged("the gzip body goes on behind its end; send one member")
    except zlib.error as error:
        raise BodyDamaged(f"the body is said to be gzip and is not, or is damaged: {error}") from None
    if not inflate.eof and not inflate.unconsumed_tail:
        raise BodyDamaged("the gzip body ends too early")


def _announced(length: str) -> int:
    """Return the length that a header says; 0 if it says none, and the body itself will tell."""
    return int(length[:_LONGEST_LENGTH]) if length.isascii() and length.isdecimal() else 0


def _is_gzip(content_encoding: str) -> bool:
    """Return whether the body is compressed; raise EncodingNotSupported for any way but gzip, and for gzip twice."""
    encodings = [part.strip().lower() for part in content_encoding.split(",")]
    applied = [encoding for encoding in encodings if encoding not in ("", "identity")]
    if not applied:
        return False
    if len(applied) > 1 or applied[0] not in _GZIP:
        shown = cut(content_encoding, _SHOWN)
        raise EncodingNotSupported(
            f"Content-Encoding {shown!r} is not read; send the body as it is, or compressed once with gzip",
            {"header": "Content-Encoding", "value": shown, "supported": ["gzip", "identity"]},
        )
    return True


def _check_type(content_type: str | None) -> None:
    if content_type is None:
        raise _wrong_type("The body has no Content-Type", None)
    media_type, charset = _media_type(content_type)
    if media_type != "application/json" and not (
        media_type.startswith("application/") and media_type.endswith("+json")
    ):
        raise _wrong_type(f"Content-Type {cut(content_type, _SHOWN)!r} is not read", cut(content_type, _SHOWN))
    charset = cut(charset, _SHOWN)
    if charset.lower() not in _CHARSETS:
        raise EncodingNotSupported(
            f"The body's charset {charset!r} is not read; JSON is sent as UTF-8",
            {"header": "Content-Type", "value": charset, "supported": ["utf-8"]},
        )


@lru_cache(maxsize=32)  # clients send a few, and to parse one takes 60 us
def _media_type(content_type: str) -> tuple[str, str]:
    """Return type and charset of a header Content-Type (RFC 2045)."""
    header = Message()
    header["content-type"] = content_type
    return header.get_content_type(), str(header.get_param("charset", "utf-8"))


def _wrong_type(what: str, value: str | None) -> MediaTypeNotSupported:
    return MediaTypeNotSupported(
        f"{what}; send JSON, with the header Content-Type: application/json",
        {"header": "Content-Type", "value": value, "supported": ["application/json"]},
    )


def _not_utf8(why: str) -> EncodingNotSupported:
    return EncodingNotSupported(f"The body is not UTF-8, as JSON must be: {why}", {"supported": ["utf-8"]})


def _too_large(most: int) -> BodyTooLarge:
    return BodyTooLarge(
        f"The body has more than {most} bytes; send fewer prompts in one request, or raise the arg max_body_bytes",
        {"max_body_bytes": most},
    )


def _not_json(kind: str, position: int, message: str) -> NoReturn:
    raise RequestValidationError([{"type": kind, "loc": ("body", position), "msg": message, "input": {}}])
