"""Web servers as LoRA sources: HTTP range requests (RFC 9110), validators, and what each kind of answer means."""

import hashlib
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote, urldefrag, urlsplit

import httpx2

from serve_app.files import open_regular
from serve_app.loras.cache import LoraCache, Partial
from serve_app.loras.formats.header import header_bytes_needed
from serve_app.loras.formats.magic import describe_wrong_format
from serve_app.loras.refusals import invalid
from serve_app.loras.sources.base import (
    Changed,
    Located,
    Part,
    ReadRequest,
    RemoteSource,
    SourcePolicy,
    identity,
    is_identity,
)
from serve_app.loras.sources.transfer import FIRST_GUESS, download, read_up_to, refuse_foreign
from serve_app.loras.sources.wording import attempt, not_found, refused, too_large
from serve_app.net import Client, Deadline, Transient
from serve_app.net.headers import content_range, natural, retry_after_s
from serve_app.spec import Expert

_LONGEST_NAME = 200
_OK, _PARTIAL, _UNSATISFIABLE = 200, 206, 416
_GONE = frozenset({404, 410})
_DENIED = frozenset({401, 403, 407, 451})
_BUSY = frozenset({408, 425, 429})
_SERVER_ERROR = 500
_PAGES = ("text/html", "application/xhtml+xml")
_FILE_NAME = re.compile(r"""filename\*?=(?:UTF-8'[^']*')?"?([^";]+)"?""", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class WebPart(Part):
    """A byte range from a web server.

    `validator` is the entity tag, else the time of the last modification, else None.
    """

    is_range: bool  # the server answered with the range; otherwise `start` is 0
    validator: str | None
    file_name: str | None  # as the server calls it


class WebSource(RemoteSource):
    """`https://host/file`. No token is ever sent.

    A file is identified by its address, entity tag (or time of last modification) and size. If the server gives none of
    these, or no ranges, the whole file is downloaded into the cache and identified by its SHA-256.
    """

    def __init__(self, policy: SourcePolicy, cache: LoraCache, context: ssl.SSLContext) -> None:
        self._policy = policy
        self._cache = cache
        self._context = context

    def locate(self, reference: str, name: str, *, token: str | None, expert: Expert | None) -> Located:
        """See `RemoteSource`."""
        location = urldefrag(reference.strip()).url
        deadline = Deadline(self._policy.locate_timeout_s)
        found = attempt(lambda: self._probe(location, name, deadline), self._policy, deadline, name)
        return found or self._whole(location, name)

    def _probe(self, location: str, name: str, deadline: Deadline) -> Located | None:
        with self._client(deadline) as client, byte_range(client, location, name, stop=FIRST_GUESS) as part:
            if part.total is not None and part.total > self._policy.max_bytes:
                raise too_large(name, part.total, self._policy.max_bytes)
            head = read_up_to(part, FIRST_GUESS)
            refuse_foreign(head, part.total, self._policy, name)
            if not part.is_range or part.validator is None or part.total is None:
                return None
            return Located(
                reference=name,
                location=location,
                content=identity(location, part.validator, part.total),
                sha256=None,
                size=part.total,
                file_name=_file_name(location, part),
                head=head,
            )

    def _whole(self, location: str, name: str) -> Located:
        """Download the file, and identify it by its hash.

        The server does not say whether the file has changed since an earlier call, so the download is never resumed.
        """
        deadline = Deadline(self._policy.total_timeout_s)
        names: list[str] = []

        @contextmanager
        def open_at(_offset: int) -> Iterator[Part]:
            with self._client(deadline) as client, byte_range(client, location, name) as part:
                names[:] = [_file_name(location, part)]
                yield part

        def fill(partial: Partial) -> None:
            download(open_at, partial, self._policy, deadline, name)

        key = f"url-{hashlib.sha256(location.encode()).hexdigest()}"
        with self._cache.hold_new(key, fill, name, wait_s=deadline.left()) as held:
            size = held.path.stat().st_size
            with open_regular(held.path) as stream:
                head = stream.read(FIRST_GUESS)
                needed = header_bytes_needed(head, size, name, self._policy.max_header_bytes)
                head += stream.read(max(needed - len(head), 0))
        return Located(
            reference=name,
            location=location,
            content=held.sha256,
            sha256=held.sha256,
            size=size,
            file_name=names[0],
            head=head,
        )

    @contextmanager
    def open(self, wanted: ReadRequest) -> Iterator[Part]:
        """See `RemoteSource`."""
        # No If-Range: it makes servers send the whole file if it has changed, or if its entity tag is weak.
        with (
            self._client(wanted.deadline) as client,
            byte_range(client, wanted.location, wanted.name, start=wanted.start, stop=wanted.stop) as part,
        ):
            found = identity(wanted.location, part.validator or "", part.total or 0)
            if is_identity(wanted.content) and wanted.content != found:
                raise Changed
            yield part

    def _client(self, deadline: Deadline) -> Client:
        return Client(self._policy, deadline, self._context)


def _file_name(location: str, part: WebPart) -> str:
    name = part.file_name or unquote(urlsplit(location).path)
    return PurePosixPath(name.replace("\\", "/")).name[:_LONGEST_NAME]


@contextmanager
def byte_range(
    client: Client, url: str, name: str, *, start: int = 0, stop: int | None = None, token: str | None = None
) -> Iterator[WebPart]:
    """Request bytes [start, stop) of the file at `url`, or all bytes if the server does not support ranges.

    `name` is for errors, `token` for the origin of `url`. `stop` None is the end. A file that ends at or before `start`
    is read from 0.

    Raises:
        Transient, Forbidden: see `Client.stream`; Transient also for answers of a busy server, such as 503.
        LoraNotFound, LoraPathRefused, LoraInvalid: there is no file, or none that this client may have.
    """
    wanted = f"bytes={start}-{'' if stop is None else stop - 1}"
    own = {"Authorization": f"Bearer {token}"} if token else {}
    with client.stream("GET", url, headers={"Range": wanted, **own}) as response:
        if response.status_code != _UNSATISFIABLE or start == 0:
            yield _read(response, name, start)
            return
    with client.stream("GET", url, headers=own) as response:
        yield _read(response, name, 0)


def _read(response: httpx2.Response, name: str, start: int) -> WebPart:
    _check_status(response, name)
    _check_kind(response, name)
    is_range = response.status_code == _PARTIAL
    total = _total(response, start) if is_range else natural(response.headers.get("content-length"))
    return WebPart(
        start=start if is_range else 0,
        total=total,
        chunks=response.iter_raw(),
        is_range=is_range,
        validator=response.headers.get("etag") or response.headers.get("last-modified"),
        file_name=_announced_name(response.headers.get("content-disposition", "")),
    )


def _check_status(response: httpx2.Response, name: str) -> None:
    status = response.status_code
    if status in (_OK, _PARTIAL):
        return
    if status in _GONE:
        raise not_found(name)
    if status in _DENIED:
        raise refused(
            name,
            f"its server denies access ({status}); for the Hub, send hf_token of an account that may read the "
            "repository, and accept its conditions there if it is gated",
        )
    if status == _UNSATISFIABLE:
        raise invalid(name, str(describe_wrong_format(b"")))
    fault = busy(status, response.headers.get("retry-after", ""))
    raise fault or refused(name, f"its server answers {status}; check the address")


def busy(status: int, retry_after: str) -> Transient | None:
    """Return the fault if a retry may succeed after this `status` (with the server's Retry-After), else None."""
    if status in _BUSY or status >= _SERVER_ERROR:
        return Transient(f"its server answers {status}", retry_after_s(retry_after))
    return None


def _check_kind(response: httpx2.Response, name: str) -> None:
    if response.headers.get("content-type", "").strip().lower().startswith(_PAGES):
        raise invalid(name, str(describe_wrong_format(b"<html")))
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise refused(name, "its server sends it compressed, although asked not to; use another address")


def _total(response: httpx2.Response, start: int) -> int | None:
    found = content_range(response.headers.get("content-range"))
    if found is None or found.start != start:
        raise Transient("its server answers with another part of the file than was asked for")
    return found.total


def _announced_name(disposition: str) -> str | None:
    found = _FILE_NAME.search(disposition)
    return None if found is None else found[1].strip()
