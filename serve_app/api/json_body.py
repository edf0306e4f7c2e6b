"""JSON request bodies (Content-Type, charset, gzip, size limit): checked before anything is parsed.

Example:
    router = APIRouter(route_class=JsonRoute)

FastAPI reads a body of any length, any type and any encoding that it can guess, and its errors say little. A
`JsonRoute` stops reading at the arg `max_body_bytes`, even if a chunked body does not announce its length, and stops
decompressing gzip at the same limit.
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
from serve_app.json_bounds import ValueCounter, has_more_values

MOST_VALUES = 40_000  # in a body; a thousand prompts with every field have about 20,000. Parsing takes at most 20 ms
_LONGEST_LENGTH = 30  # digits of a Content-Length that are read; a longer number is too large in any case
_SHOWN = 100  # characters of a header that is repeated
_GZIP = ("gzip", "x-gzip")
_GZIP_WINDOW = 16 + zlib.MAX_WBITS  # makes zlib read gzip's header and checksum
_CHARSETS = ("utf-8", "utf8", "us-ascii", "ascii")
_IS_JSON = re.compile(r"application/(json|.*\+json)")
_NUL = b"\0"  # in the first characters of JSON only where each has 2 or 4 bytes


class JsonRoute(APIRoute):
    """A route whose body is JSON, with errors that say what to do.

    Raises, before the endpoint is called:
        MediaTypeNotSupported, EncodingNotSupported: the headers or the bytes are not those of JSON.
        BodyTooSlow: the body did not arrive in time.
        BodyTooLarge: it is larger than the service reads.
        TooManyBodies: other large bodies use all the memory for bodies.
        BodyDamaged: it is compressed, and cannot be decompressed.
        RequestValidationError: it is no JSON, or has more values than any request.
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
        """Take the parsed body; `content_type` replaces the request's own if the body was no JSON (a form)."""
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
        """Return the parsed body."""
        return self._content


def is_form(headers: Headers) -> bool:
    """Return whether the Content-Type is a multipart form."""
    return headers.get("content-type", "").lower().startswith("multipart/form-data")


@asynccontextmanager
async def body_of(request: Request, *, checks_type: bool = True) -> AsyncIterator[bytes]:
    """Hold the body in memory during the block, decompressed, within the service's limits.

    `checks_type` is false if the body may be something else than JSON.

    Raises:
        MediaTypeNotSupported, EncodingNotSupported, BodyTooSlow, BodyTooLarge, TooManyBodies, BodyDamaged: see
            `JsonRoute`.
    """
    services: Services = request.app.state.services
    bodies: LargeBodies = request.app.state.large_bodies
    with bodies.room() as take:
        pieces = _pieces(request, services.max_body_bytes)
        if checks_type:
            pieces = _few_values(pieces, request)
        body = await _read(pieces, services.plan.settings.body_timeout_s, take)
        if body and checks_type:
            _check_type(request.headers.get("content-type"))
        yield body


async def json_of(request: Request, body: bytes) -> Any:
    """Parse the JSON in `body`, large bodies one after the other; return None if it is empty. Raises as `parse`."""
    bodies: LargeBodies = request.app.state.large_bodies
    await bodies.turn(len(body))
    return parse(body) if body else None


def _pieces(request: Request, most: int) -> AsyncIterator[bytes]:
    """Return the body as it arrives, decompressed: at most `most` bytes of it."""
    compressed = _is_gzip(request.headers.get("content-encoding", ""))
    if _announced(request.headers.get("content-length", "")) > most:
        raise _too_large(most)
    chunks = _within(request.stream(), most)
    return _within(_inflated(chunks, most), most) if compressed else chunks


async def _read(pieces: AsyncIterator[bytes], within_s: float, take: Callable[[int], None]) -> bytes:
    """Read the body in `within_s` seconds; `take` hears the bytes of each piece."""
    try:
        async with asyncio.timeout(within_s):
            return b"".join([piece async for piece in _taken(pieces, take)])
    except TimeoutError:
        raise BodyTooSlow(
            f"the body did not arrive within {within_s:g} seconds; send it again", {"body_timeout_s": within_s}
        ) from None
    except ClientDisconnect:
        raise BodyDamaged("the connection ended before the body did") from None


async def _few_values(pieces: AsyncIterator[bytes], request: Request) -> AsyncIterator[bytes]:
    """Pass on JSON as it arrives; refuse it as soon as it holds more values than any request."""
    counter = ValueCounter(MOST_VALUES)
    async for piece in pieces:
        if counter.exceeds(piece):
            _check_type(request.headers.get("content-type"))
            _too_many_values()
        yield piece


def parse(body: bytes) -> Any:
    """Parse the JSON in `body`; a byte order mark at its start is ignored.

    Raises:
        EncodingNotSupported: it is not UTF-8.
        RequestValidationError: it is no JSON (with the byte offset of the error), or has more values than any request.
    """
    if len(body) > 1 and _NUL in body[:2]:
        raise _not_utf8("it looks like UTF-16 or UTF-32")
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        found = f"byte 0x{body[error.start]:02x} at position {error.start} is none of UTF-8"
        raise _not_utf8(f"{found}; it may be Latin-1 or Windows-1252") from None
    if has_more_values(body, MOST_VALUES):
        _too_many_values()
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
    """Decompress at most one byte more than `most`, so that a decompression bomb is never expanded."""
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
    """Return the length in a Content-Length header; 0 if there is none, so that only the body itself shows it."""
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


def _too_many_values() -> NoReturn:
    _not_json("too_many_values", 0, f"JSON has more than {MOST_VALUES} values; send fewer prompts in one request")


def _not_json(kind: str, position: int, message: str) -> NoReturn:
    raise RequestValidationError([{"type": kind, "loc": ("body", position), "msg": message, "input": {}}])
