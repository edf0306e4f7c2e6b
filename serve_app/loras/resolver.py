"""From what a client calls a LoRA to its identity and contents, wherever the file lies."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import TypeVar

from pydantic import SecretStr

from serve_app.batching import SharedAnswers
from serve_app.loras.formats import LoraContents
from serve_app.loras.library import LoraLibrary
from serve_app.loras.report import FileReport, describe, inspect_file
from serve_app.loras.sources import Located, LoraSources, is_remote
from serve_app.models.card import ModelCard
from serve_app.spec import Expert, LoraFile

Result = TypeVar("Result")

# Apart from the threads that everything else shares: a slow server holds up requests for its own files only.
_REMOTE_THREADS = 16
_REMEMBERED_HEADERS = 512  # of remote files; a full-size one takes about half a megabyte


@dataclass(frozen=True, slots=True)
class ResolvedLora:
    """A file that passed every check that its place allows: all of them where it is local, else those of its header.

    `location`, `content` and `sha256` are what `LoraFile` says of them.
    """

    reference: str
    location: str
    content: str
    sha256: str | None
    file_name: str
    contents: LoraContents

    @property
    def is_remote(self) -> bool:
        """Whether it is still to be downloaded, or at least to be looked for in the cache of another node."""
        return is_remote(self.location)

    def pinned(self, expert: Expert, multiplier: float) -> LoraFile:
        """The file as a render's spec holds it."""
        return LoraFile(
            expert=expert,
            reference=self.reference,
            location=self.location,
            content=self.content,
            sha256=self.sha256,
            multiplier=multiplier,
        )


@dataclass(frozen=True, slots=True)
class InspectedLora:
    """A file that could be used, for `expert` where the client said one. `identity` differs for different files."""

    reference: str
    expert: Expert | None
    identity: str
    report: FileReport


@dataclass(frozen=True, slots=True)
class _LocalFile:
    reference: str
    strict: bool


class LoraResolver:
    """Finds, checks and identifies LoRAs; one per process."""

    def __init__(self, library: LoraLibrary, sources: LoraSources, card: ModelCard) -> None:
        self._library = library
        self._card = card
        self._sources = sources
        self._threads = ThreadPoolExecutor(_REMOTE_THREADS, "lora-source")
        self._lock = Lock()
        self._headers: OrderedDict[tuple[str, bool], LoraContents] = OrderedDict()
        self._local: SharedAnswers[_LocalFile, ResolvedLora] = SharedAnswers(self._resolve_local)

    def resolve(
        self, reference: str, *, token: SecretStr | None, expert: Expert | None, strict: bool
    ) -> asyncio.Future[ResolvedLora]:
        """The LoRA that `reference` names now; a file that is replaced gets another `content`.

        `expert` chooses among the files of a repository that is named as a whole.

        Raises:
            LoraPathRefused, LoraNotFound, LoraInvalid: the client must change the request.
            LoraSourceUnavailable: the server that it comes from does not answer as it should.
            OSError: the service's own storage failed.
        """
        if is_remote(reference):
            return self._in_thread(reference, self._resolve_remote, reference, token, expert, strict)
        return self._local.ask(_LocalFile(reference, strict))

    async def inspect(
        self, reference: str, *, token: SecretStr | None, expert: Expert | None, norms: bool
    ) -> InspectedLora:
        """What the file that `reference` names holds, mostly from its header; raises as `resolve`.

        `norms` are for local files only.
        """
        return await self._in_thread(reference, self._inspect, reference, token, expert, norms)

    def _in_thread(self, reference: str, call: Callable[..., Result], *args: object) -> asyncio.Future[Result]:
        threads = self._threads if is_remote(reference) else None
        return asyncio.get_running_loop().run_in_executor(threads, call, *args)

    def _inspect(self, reference: str, token: SecretStr | None, expert: Expert | None, norms: bool) -> InspectedLora:
        secret = None if token is None else token.get_secret_value()
        located = self._sources.locate(reference, token=secret, expert=expert)
        if located.path is not None:
            report = inspect_file(located.path, located.reference, self._card, expert=expert, strict=False, norms=norms)
        else:
            header = self._sources.header(located, secret)
            contents = self._library.check_header(header, located.reference, strict=False)
            report = describe(header, contents, located.file_name, self._card, expert=expert)
        return InspectedLora(located.reference, expert, located.location, report)

    def _resolve_remote(
        self, reference: str, token: SecretStr | None, expert: Expert | None, strict: bool
    ) -> ResolvedLora:
        secret = None if token is None else token.get_secret_value()
        located = self._sources.locate(reference, token=secret, expert=expert)
        return ResolvedLora(
            reference=located.reference,
            location=located.location,
            content=located.content,
            sha256=located.sha256,
            file_name=located.file_name,
            contents=self._remote_contents(located, secret, strict),
        )

    async def _resolve_local(self, file: _LocalFile) -> ResolvedLora:
        found = await self._in_thread(
            file.reference, partial(self._library.inspect, file.reference, strict=file.strict)
        )
        return ResolvedLora(
            reference=file.reference,
            location=str(found.file),
            content=found.sha256,
            sha256=found.sha256,
            file_name=found.file_name,
            contents=found.contents,
        )

    def _remote_contents(self, located: Located, token: str | None, strict: bool) -> LoraContents:
        key = (located.content, strict)
        with self._lock:
            if key in self._headers:
                self._headers.move_to_end(key)
                return self._headers[key]
        header = self._sources.header(located, token)
        found = self._library.check_header(header, located.reference, strict=strict)
        with self._lock:
            self._headers[key] = found
            if len(self._headers) > _REMEMBERED_HEADERS:
                self._headers.popitem(last=False)
        return found
