"""Downloads: `GET /v1/requests/{id}/outputs/{index}`, the video of one prompt, verified before it is served.

The served file has the bytes that were published: it is a regular file below the outputs' root, reached without
following links, with the size and SHA-256 that were stored with the render. The SHA-256 is the ETag. `?variant=`
requests a picture of the video instead; see `api.variants`.
"""

import re
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import FileResponse, RedirectResponse
from pydantic import BeforeValidator
from pydantic_core import PydanticKnownError
from starlette.types import Receive, Scope, Send

from serve_app.api.dependencies import SenderDep, Services, ServicesDep
from serve_app.api.guard import opened_by_link
from serve_app.api.ranges import RangedFile
from serve_app.api.requests import RequestId, known_form
from serve_app.api.schemas.errors import UNAVAILABLE, WRONG_HEADER, refusal
from serve_app.api.variants import Variants, VariantsDep
from serve_app.clips.variants import MEDIA_TYPE
from serve_app.errors import OutputGone, OutputNotFound, OutputStorageUnavailable
from serve_app.files import Fingerprint
from serve_app.jobs.records import Output, RequestRecord
from serve_app.jobs.states import RenderState
from serve_app.outputs import NotAsStored, OpenOutput
from serve_app.spec import Variant

_LINK_LIFETIME_S = 3600  # of a presigned URL; clients use it at once

router = APIRouter(tags=["requests"], responses=UNAVAILABLE | WRONG_HEADER)

_INDEX = re.compile(r"-?[1-9][0-9]{0,3999}|0")  # no longer: Python reads no number of more than 4,300 digits


def _index(text: str) -> int:
    """Parse an index, in the spelling of links only: `+0` and `00` are refused."""
    if not _INDEX.fullmatch(text):
        raise PydanticKnownError("int_parsing")
    return int(text)


VariantQuery = Annotated[
    Variant,
    Query(
        description="`video`, the file itself; `thumbnail` or `spritesheet` (up to 25 frames): a WebP drawn from it."
    ),
]
Index = Annotated[int, BeforeValidator(_index), Path(description="Index of the prompt in the request, from 0.")]

FILE_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"video/mp4": {}, "image/webp": {}, "application/zip": {}}, "description": "The file."},
    206: {"description": "The range that was asked for."},
    304: {"description": "The file is the one whose ETag If-None-Match names."},
    307: {"description": "Where the file lies, when outputs are kept in an object store."},
}
"""What a route that serves an output may answer, beside refusals."""


@router.get(
    "/v1/requests/{request_id}/outputs/{index}",
    response_class=FileResponse,
    responses={
        **FILE_ANSWERS,
        **refusal(416, "The range lies beyond the end of the file."),
        **refusal(404, "No such request, or no finished output at that index."),
        **refusal(410, "What lies where the video was stored is not that video; render it again."),
        **refusal(503, "The job store or the place for outputs does not answer; Retry-After says when to try again."),
    },
)
@opened_by_link
async def output(
    request_id: RequestId,
    index: Index,
    request: Request,
    *,
    services: ServicesDep,
    sender: SenderDep,
    variants: VariantsDep,
    variant: VariantQuery = Variant.VIDEO,
) -> Response:
    """Return the video of one prompt, or a picture of it; ranges and conditional requests are supported."""
    record = await services.store.requests.get(known_form(request_id), owner=sender.owner)
    file = _video(_finished_output(record, index))
    opened = await _opened(file, record, index, services)
    if variant is not Variant.VIDEO:
        if opened is not None:
            opened.stream.close()
        file = await _picture(record, index, variant, variants)
        opened = await _opened(file, record, index, services)
    if file.etag is not None and _names(request.headers.getlist("If-None-Match"), file.etag):
        if opened is not None:
            opened.stream.close()
        return Response(status_code=304, headers={"ETag": file.etag})
    if opened is None:
        return await _redirect(file, services)
    return _OpenFile(
        opened,
        headers=None if file.etag is None else {"ETag": file.etag},
        media_type=file.media_type,
        filename=f"{record.id}_{index}{file.ending}",
        content_disposition_type="inline",
    )


@dataclass(frozen=True, slots=True)
class _File:
    """A file to serve: its name in the output store, and the stored size and hash. `ending` is of the download."""

    name: str
    media_type: str
    ending: str
    fingerprint: Fingerprint | None
    etag: str | None


def _video(made: Output) -> _File:
    etag = None if made.sha256 is None else f'"{made.sha256}"'
    return _File(made.name, made.format.media_type, f".{made.format.extension}", made.fingerprint, etag)


async def _picture(record: RequestRecord, index: int, variant: Variant, variants: Variants) -> _File:
    made = _finished_output(record, index)
    name = await variants.made(made, variant, record.id)
    etag = None if made.sha256 is None else f'"{made.sha256}-{variant.value}"'
    return _File(name, MEDIA_TYPE, f"_{variant.value}.webp", None, etag)


async def _opened(file: _File, record: RequestRecord, index: int, services: Services) -> OpenOutput | None:
    details = {"request_id": record.id, "index": index}
    try:
        return await services.outputs.open(file.name, file.fingerprint)
    except FileNotFoundError:
        raise OutputNotFound(
            f"output {index} of request {record.id} was removed from the server; render it again", details
        ) from None
    except NotAsStored as error:
        raise OutputGone(
            f"output {index} of request {record.id} is no longer the video that was stored: {error}; render it again",
            details | {"reason": str(error)},
        ) from error
    except OSError as error:
        raise OutputStorageUnavailable.of("read", error) from error


async def _redirect(file: _File, services: Services) -> Response:
    try:
        return RedirectResponse(await services.outputs.signed_url(file.name, _LINK_LIFETIME_S))
    except OSError as error:
        raise OutputStorageUnavailable.of("read", error) from error


def _finished_output(record: RequestRecord, index: int) -> Output:
    finished = {render.index: render.output for render in record.renders if render.state is RenderState.SUCCEEDED}
    found = finished.get(index)
    if found is None:
        raise OutputNotFound(
            f"request {record.id} has no finished output {index}; it has: {sorted(finished)}",
            {"request_id": record.id, "index": index, "finished": sorted(finished)},
        )
    return found


def _names(if_none_match: list[str], etag: str) -> bool:
    """Return whether an If-None-Match names the ETag, by weak comparison (RFC 9110, section 13.1.2)."""
    tags = [tag.strip().removeprefix("W/") for line in if_none_match for tag in line.split(",")]
    return etag in tags or "*" in tags


class _OpenFile(RangedFile):
    """Serves a file that is open already, so that it cannot be replaced between the check and the answer."""

    def __init__(self, opened: OpenOutput, **settings: Any) -> None:
        super().__init__(f"/dev/fd/{opened.stream.fileno()}", stat_result=opened.status, **settings)
        self._stream = opened.stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file, and close it."""
        with self._stream:
            self._stream.seek(0)  # some systems share the offset with what is opened through /dev/fd
            await super().__call__(scope, receive, send)
