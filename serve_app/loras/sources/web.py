"""Files on any web server."""

import hashlib
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from urllib.parse import unquote, urldefrag, urlsplit

from serve_app.loras.cache import LoraCache, Partial
from serve_app.loras.formats.header import header_bytes_needed
from serve_app.loras.sources import ranges
from serve_app.loras.sources.beginning import FIRST_GUESS, read_up_to, refuse_foreign
from serve_app.loras.sources.deadline import Deadline
from serve_app.loras.sources.download import download
from serve_app.loras.sources.exchange import Exchange
from serve_app.loras.sources.faults import Changed, attempt
from serve_app.loras.sources.located import Located, Part, identity, is_identity
from serve_app.loras.sources.policy import SourcePolicy
from serve_app.loras.sources.ranges import WebPart
from serve_app.loras.sources.remote import RemoteSource
from serve_app.loras.sources.wording import too_large
from serve_app.spec import Expert

_LONGEST_NAME = 200


class WebSource(RemoteSource):
    """`https://host/file`. No token is ever sent.

    A file is identified by its address, entity tag (or time of last modification) and size. Where the server gives
    none of these, or no ranges, all of it is downloaded into the cache to know it by its SHA-256.
    """

    def __init__(self, policy: SourcePolicy, cache: LoraCache, ssl_context: ssl.SSLContext) -> None:
        self._policy = policy
        self._cache = cache
        self._ssl_context = ssl_context

    def locate(self, reference: str, name: str, *, token: str | None, expert: Expert | None) -> Located:
        """See `RemoteSource`."""
        location = urldefrag(reference.strip()).url
        deadline = Deadline(self._policy.locate_timeout_s)
        found = attempt(lambda: self._probe(location, name, deadline), self._policy, deadline, name)
        return found or self._whole(location, name)

    def _probe(self, location: str, name: str, deadline: Deadline) -> Located | None:
        with self._exchange(deadline) as exchange, ranges.opened(exchange, location, name, stop=FIRST_GUESS) as part:
            if part.total is not None and part.total > self._policy.max_bytes:
                raise too_large(name, part.total, self._policy.max_bytes)
            head = read_up_to(part, FIRST_GUESS)
            refuse_foreign(head, part.total, name)
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
        """The file by its hash. Nothing says whether it is still the one of an earlier call, so it is never resumed."""
        deadline = Deadline(self._policy.total_timeout_s)
        names: list[str] = []

        @contextmanager
        def open_at(_offset: int) -> Iterator[Part]:
            with self._exchange(deadline) as exchange, ranges.opened(exchange, location, name) as part:
                names[:] = [_file_name(location, part)]
                yield part

        def fill(partial: Partial) -> None:
            download(open_at, partial, self._policy, deadline, name)

        key = f"url-{hashlib.sha256(location.encode()).hexdigest()}"
        with self._cache.hold_new(key, fill, name, wait_s=deadline.left()) as held:
            size = held.path.stat().st_size
            with held.path.open("rb") as stream:
                head = stream.read(FIRST_GUESS)
                head += stream.read(max(header_bytes_needed(head, size, name) - len(head), 0))
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
    def open(
        self,
        location: str,
        name: str,
        *,
        content: str,
        token: str | None,
        start: int,
        stop: int | None,
        deadline: Deadline,
    ) -> Iterator[Part]:
        """See `RemoteSource`."""
        # No If-Range: it makes servers answer with all of the file where ours has changed, or where its tag is weak.
        with (
            self._exchange(deadline) as exchange,
            ranges.opened(exchange, location, name, start=start, stop=stop) as part,
        ):
            if is_identity(content) and identity(location, part.validator or "", part.total or 0) != content:
                raise Changed
            yield part

    def _exchange(self, deadline: Deadline) -> Exchange:
        return Exchange(self._policy, deadline, self._ssl_context)


def _file_name(location: str, part: WebPart) -> str:
    name = part.file_name or unquote(urlsplit(location).path)
    return PurePosixPath(name.replace("\\", "/")).name[:_LONGEST_NAME]
