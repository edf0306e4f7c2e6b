"""LoRA resolution for the Ingress: from a client's reference to a found and checked file, local or remote.

Example:
    resolver = LoraResolver(library, sources, card, bulkhead, siblings)
    looks = resolver.looks(sender="team-a", token=None, owner="team-a")    # of one request
    found = await looks.resolve("hf://org/repository", Expert.HIGH, strict=True)
    lora = found.pinned(Expert.HIGH, multiplier=1.0)    # the LoraFile of a render's spec
    report = (await looks.inspect("a.safetensors", None, norms=False)).report
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from pydantic import SecretStr

from serve_app.batching import SharedAnswers
from serve_app.caching import SingleFlightCache
from serve_app.errors import LoraInvalid
from serve_app.loras import adapter_files
from serve_app.loras.formats import LoraContents, SafetensorsHeader, parse
from serve_app.loras.formats.adapter_config import ADAPTER_FILE, AdapterFile
from serve_app.loras.inspection import Seen, look_into
from serve_app.loras.library import LoraLibrary, ResolvedLora, identified
from serve_app.loras.report import FileReport
from serve_app.loras.siblings import Siblings
from serve_app.loras.sources import Located, LoraSources, is_remote
from serve_app.models.card import ModelCard
from serve_app.net import Bulkhead
from serve_app.spec import Expert

Result = TypeVar("Result")

_LOCAL_THREADS = 4  # a separate pool: reading files must not occupy the threads that everything else shares
_LOOKS_AT_ONCE = 4  # of one request, so that a request for many files is not refused for its own sake
_REMEMBERED_HEADERS = 512  # of remote files; a full-size one takes about half a megabyte


@dataclass(frozen=True, slots=True)
class InspectedLora:
    """A usable file, with its report for `expert` if the client named one. Different files differ in `identity`."""

    reference: str
    expert: Expert | None
    identity: str
    report: FileReport


@dataclass(frozen=True, slots=True)
class Looked:
    """The result of a look into a file, and where the file was."""

    reference: str
    location: str
    seen: Seen


@dataclass(frozen=True, slots=True)
class Asker:
    """Who sends a request: whose share of the threads it uses, whose folder it sees, and its token."""

    sender: str
    owner: str | None
    token: SecretStr | None


@dataclass(frozen=True, slots=True)
class _Parsed:
    header: SafetensorsHeader
    contents: LoraContents


@dataclass(frozen=True, slots=True)
class _LocalFile:
    reference: str
    owner: str | None
    strict: bool


class LoraResolver:
    """Finds, checks and identifies LoRAs; one per process. Concurrent calls for one local file share the work."""

    def __init__(
        self,
        library: LoraLibrary,
        sources: LoraSources,
        card: ModelCard,
        bulkhead: Bulkhead,
        siblings: Siblings,
    ) -> None:
        """Refusals point to `siblings`, the service's other models."""
        self._library = library
        self._siblings = siblings
        self._card = card
        self._sources = sources
        self._bulkhead = bulkhead
        self._threads = ThreadPoolExecutor(_LOCAL_THREADS, "lora-file")
        self._parsed_headers: SingleFlightCache[tuple[str, bool, AdapterFile | None], _Parsed] = SingleFlightCache(
            _REMEMBERED_HEADERS
        )
        self._local: SharedAnswers[_LocalFile, ResolvedLora] = SharedAnswers(self._resolve_local)

    def looks(self, *, sender: str, token: SecretStr | None, owner: str | None) -> "Looks":
        """Return the lookups of one request.

        Args:
            sender: whose share of the fetching threads they use.
            token: of the client, for the Hugging Face Hub.
            owner: whose folder in `lora_root` they see beside the shared files; None sees all folders.
        """
        return Looks(self, Asker(sender, owner, token))

    async def resolve(self, reference: str, *, asker: Asker, expert: Expert | None, strict: bool) -> ResolvedLora:
        """See `Looks.resolve`."""
        if is_remote(reference):
            return await self._fetch(reference, asker, self._resolve_remote, reference, asker.token, expert, strict)
        return await self._local.ask(_LocalFile(reference, asker.owner, strict))

    async def look(self, reference: str, *, asker: Asker, expert: Expert | None, norms: bool) -> "Looked":
        """Look into what `reference` names; see `Looks.inspect`."""
        if is_remote(reference):
            return await self._fetch(reference, asker, self._look, reference, asker, expert, norms)
        return await self._in_thread(self._look, reference, asker, expert, norms)

    async def report(self, looked: "Looked", expert: Expert | None) -> InspectedLora:
        """Return the report on a file that was looked into."""
        report = await self._in_thread(looked.seen.report, self._card, expert)
        return InspectedLora(looked.reference, expert, looked.location, report)

    def names_folder(self, reference: str) -> bool:
        """Return whether the expert chooses the file that `reference` names."""
        return self._sources.names_folder(reference)

    def _in_thread(self, call: Callable[..., Result], *args: object) -> asyncio.Future[Result]:
        return asyncio.get_running_loop().run_in_executor(self._threads, call, *args)

    async def _fetch(self, reference: str, asker: Asker, call: Callable[..., Result], *args: object) -> Result:
        return await self._bulkhead.run(partial(call, *args), host=self._sources.host(reference), sender=asker.sender)

    def _look(self, reference: str, asker: Asker, expert: Expert | None, norms: bool) -> "Looked":
        secret = None if asker.token is None else asker.token.get_secret_value()
        located = self._sources.locate(reference, token=secret, expert=expert, owner=asker.owner)
        if located.path is not None:
            seen = self._look_at_local(located.path, located.reference, asker.owner, norms)
        else:
            parsed = self._parsed(located, secret, strict=False)
            seen = Seen(located.file_name, parsed.header, parsed.contents)
        return Looked(located.reference, located.location, seen)

    def _look_at_local(self, path: Path, name: str, owner: str | None, norms: bool) -> Seen:
        beside = self._library.beside(name, owner)
        checked = None if norms else self._library.known(path, beside)
        if checked is None:
            most = self._library.most_header_bytes
            with self._siblings.asked_about(path, name):
                return look_into(
                    path, name, self._card, strict=False, norms=norms, beside=beside, most_header_bytes=most
                )
        return Seen(PurePosixPath(name).name, checked.header, checked.contents, checked.alphas)

    def _resolve_remote(
        self, reference: str, token: SecretStr | None, expert: Expert | None, strict: bool
    ) -> ResolvedLora:
        secret = None if token is None else token.get_secret_value()
        located = self._sources.locate(reference, token=secret, expert=expert)
        parsed = self._parsed(located, secret, strict)
        return ResolvedLora(
            reference=located.reference,
            location=located.location,
            content=identified(located.content, parsed.contents),
            sha256=located.sha256,
            size=located.size,
            file_name=located.file_name,
            contents=parsed.contents,
        )

    async def _resolve_local(self, file: _LocalFile) -> ResolvedLora:
        return await self._in_thread(
            partial(self._library.find, file.reference, strict=file.strict, owner=file.owner, siblings=self._siblings)
        )

    def _parsed(self, located: Located, token: str | None, strict: bool) -> _Parsed:
        """Return the header of a file and what it changes, read and parsed once per content."""
        found = self._parsed_alone(located, token, strict)
        if not adapter_files.wanted(located.file_name, found.contents):
            return found
        text = self._sources.beside(located, ADAPTER_FILE, adapter_files.MOST_BYTES, token)
        if text is None:
            return found
        beside = adapter_files.parsed(text, located.file_name, located.reference)
        return self._parsed_with(located, found.header, strict, beside)

    def _parsed_alone(self, located: Located, token: str | None, strict: bool) -> _Parsed:
        found = self._parsed_headers.peek((located.content, strict, None))
        return found or self._parsed_with(located, self._sources.header(located, token), strict, None)

    def _parsed_with(
        self, located: Located, header: SafetensorsHeader, strict: bool, beside: AdapterFile | None
    ) -> _Parsed:
        name, architecture = located.reference, self._card.architecture
        try:
            return self._parsed_headers.get(
                (located.content, strict, beside),
                lambda: _Parsed(header, parse(header, architecture, name, strict=strict, beside=beside)),
            )
        except LoraInvalid as error:
            raise self._siblings.hinted(error, located.content, lambda: header) from error


class Looks:
    """The lookups of one request: each path is looked up once, even if the request names it several times."""

    def __init__(self, resolver: LoraResolver, asker: Asker) -> None:
        self._resolver = resolver
        self._asker = asker
        self._begun: dict[Hashable, asyncio.Task[Any]] = {}
        self._at_once = asyncio.Semaphore(_LOOKS_AT_ONCE)

    def resolve(self, reference: str, expert: Expert | None, *, strict: bool) -> Awaitable[ResolvedLora]:
        """Return the LoRA that `reference` names now; a file that is replaced gets another `content`.

        `expert` chooses among the files of a repository that is named as a whole.

        Raises:
            LoraPathRefused, LoraNotFound, LoraInvalid: the client must change the request.
            LoraSourceUnavailable: the server that it comes from does not answer as it should.
            TooManyFetches: the service reads its maximum number of remote files already.
            OSError: the service's own storage failed.
        """
        choosing = expert if self._resolver.names_folder(reference) else None
        look = partial(self._resolver.resolve, reference, asker=self._asker, expert=choosing, strict=strict)
        return self._once(("resolve", reference, choosing, strict), look)

    async def inspect(self, reference: str, expert: Expert | None, *, norms: bool) -> InspectedLora:
        """Return what the file that `reference` names holds, mostly from its header; raises as `resolve`.

        `norms` are for local files only.
        """
        choosing = expert if self._resolver.names_folder(reference) else None
        look = partial(self._resolver.look, reference, asker=self._asker, expert=choosing, norms=norms)
        return await self._resolver.report(await self._once(("inspect", reference, choosing, norms), look), expert)

    def _once(self, key: Hashable, look: Callable[[], Coroutine[Any, Any, Result]]) -> asyncio.Task[Result]:
        if key not in self._begun:
            self._begun[key] = asyncio.create_task(self._in_turn(look))
        return self._begun[key]

    async def _in_turn(self, look: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        async with self._at_once:
            return await look()
