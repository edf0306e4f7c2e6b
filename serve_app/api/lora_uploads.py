"""Uploads: `PUT /v1/loras/{path}` streams a LoRA file into `lora_root`, with limits of size and time, and checks it."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Request, Response
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect

from serve_app.api.dependencies import SenderDep, ServicesDep
from serve_app.api.lora_files import CatalogDep, file_answer
from serve_app.api.query import KNOWN_ONLY
from serve_app.api.schemas.errors import Responses, refusal
from serve_app.api.schemas.loras import LoraFile
from serve_app.errors import (
    BodyDamaged,
    BodyTooLarge,
    BodyTooSlow,
    EncodingNotSupported,
    HeaderInvalid,
    LoraStorageUnavailable,
    TooManyBodies,
    UploadsOff,
)
from serve_app.loras.paths import Folders
from serve_app.loras.uploads import Incoming, check
from serve_app.models import limits
from serve_app.settings import Settings

router = APIRouter(tags=["loras"])

_GIB, _MIB = 1024**3, 1024**2
_AT_ONCE = 4  # uploads in one process: each writes to the disk
_LEAST_BYTES_PER_S = 64 * 1024  # on average, after the first seconds: 300 MB then take at most 80 minutes
_LONGEST_LENGTH = 30  # digits of a Content-Length that are read

_REFUSALS: Responses = {
    200: {"description": "The same file was there already."},
    **refusal(400, "The file is no LoRA of a served model, or the path or a header is refused."),
    **refusal(403, "The service takes no uploads (arg `uploads`), or the key has not the scope for it."),
    **refusal(408, "The file did not arrive in time."),
    **refusal(409, "Another file has that name."),
    **refusal(413, "The file is larger than the arg `lora_max_gib`."),
    **refusal(415, "The body is compressed."),
    **refusal(503, "The folder of the LoRAs cannot be written now, or as many uploads arrive as are taken at once."),
}
_FILE = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_BODY = {"requestBody": {"required": True, "content": _FILE}}


class LoraPathConvertor(PathConvertor):
    """Any path except `inspect`, which is an endpoint: without this, its OPTIONS would list PUT.

    A path with a line break is one too (`s`), so that it is refused as a name and not as an unknown endpoint.
    """

    regex = r"(?!inspect\Z)(?s:.*)"


register_url_convertor("lora", LoraPathConvertor())


class Uploads:
    """The uploads of one process. Use it on one event loop."""

    def __init__(self) -> None:
        self._running = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """Count as an upload during the block.

        Raises:
            TooManyBodies: the largest number of uploads is running already.
        """
        if self._running >= _AT_ONCE:
            raise TooManyBodies(f"{_AT_ONCE} files are being uploaded, as many as at once; retry later")
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1


@router.put(
    "/v1/loras/{path:lora}", status_code=201, responses=_REFUSALS, openapi_extra=_BODY, dependencies=[KNOWN_ONLY]
)
async def upload(
    path: Annotated[
        str,
        Path(
            max_length=limits.PATH_LENGTH,
            description="Under which requests will name it, ending in .safetensors; folders are made.",
        ),
    ],
    request: Request,
    response: Response,
    *,
    services: ServicesDep,
    sender: SenderDep,
    catalog: CatalogDep,
    overwrite: Annotated[bool, Query(description="Replace another file of that name.")] = False,
    if_none_match: Annotated[
        str | None, Header(description="`*`, which is the default: no other file is replaced.")
    ] = None,
) -> LoraFile:
    """Keep a LoRA file, sent as the body, so that requests can name it; nothing that no served model could use."""
    settings = services.plan.settings
    _check_allowed(settings, overwrite, if_none_match)
    folders = Folders(settings.lora_root, sender.owner)
    place = await asyncio.to_thread(folders.new, path)
    most_header_bytes = int(settings.lora_header_max_mib * _MIB)
    uploads: Uploads = request.app.state.lora_uploads
    with uploads.place():
        try:
            incoming = await asyncio.to_thread(Incoming, settings.lora_root)
            try:
                await _receive(request, incoming, settings)
                cards = [served.card for served in services.models.values()]
                await asyncio.to_thread(check, incoming.path, path, cards, most_header_bytes)
                is_new = await asyncio.to_thread(incoming.keep, place, overwrite=overwrite)
            finally:
                await asyncio.to_thread(incoming.discard)
            response.status_code = 201 if is_new else 200
            return file_answer(await catalog.file(folders.first, path))
        except OSError as error:
            raise LoraStorageUnavailable.of("written", error) from error


def _check_allowed(settings: Settings, overwrite: bool, if_none_match: str | None) -> None:
    if not settings.uploads:
        raise UploadsOff("this service takes no uploads; its operator allows them with the arg uploads", {})
    if if_none_match not in (None, "*"):
        raise HeaderInvalid("If-None-Match can only be * here", {"header": "If-None-Match"})
    if overwrite and if_none_match is not None:
        raise HeaderInvalid(
            "If-None-Match: * and ?overwrite=true say the opposite; leave out one", {"header": "If-None-Match"}
        )


async def _receive(request: Request, incoming: Incoming, settings: Settings) -> None:
    """Write the body to the incoming file, within its limits of size and time."""
    most = int(settings.lora_max_gib * _GIB)
    _check_head(request.headers, settings, most)
    started = time.monotonic()
    stream = aiter(request.stream())
    while piece := await _next(stream, settings.body_timeout_s):
        if incoming.size + len(piece) > most:
            raise _too_large(settings)
        await asyncio.to_thread(incoming.append, piece)
        counted_s = time.monotonic() - started - settings.body_timeout_s
        if incoming.size < _LEAST_BYTES_PER_S * counted_s:
            raise _too_slow(settings)
    await asyncio.to_thread(incoming.close)


async def _next(stream: AsyncIterator[bytes], within_s: float) -> bytes:
    """Return the next piece; empty at the end."""
    try:
        async with asyncio.timeout(within_s):
            return await anext(stream, b"")
    except TimeoutError:
        raise BodyTooSlow(
            f"nothing of the file arrived for {within_s:g} seconds; send it again", {"body_timeout_s": within_s}
        ) from None
    except ClientDisconnect:
        raise BodyDamaged("the connection ended before the file did") from None


def _check_head(headers: Headers, settings: Settings, most: int) -> None:
    encoding = headers.get("content-encoding", "identity")
    if encoding.strip().lower() not in ("", "identity"):
        raise EncodingNotSupported(
            "a LoRA file is uploaded as it is, without Content-Encoding",
            {"header": "Content-Encoding", "supported": ["identity"]},
        )
    length = headers.get("content-length", "")[:_LONGEST_LENGTH]
    if length.isascii() and length.isdecimal() and int(length) > most:
        raise _too_large(settings)


def _too_large(settings: Settings) -> BodyTooLarge:
    return BodyTooLarge(
        f"the file has more than {settings.lora_max_gib:g} GiB (arg lora_max_gib)",
        {"lora_max_gib": settings.lora_max_gib},
    )


def _too_slow(settings: Settings) -> BodyTooSlow:
    return BodyTooSlow(
        f"the file arrives with less than {_LEAST_BYTES_PER_S // 1024} KiB/s; send it over a faster connection",
        {"body_timeout_s": settings.body_timeout_s},
    )
