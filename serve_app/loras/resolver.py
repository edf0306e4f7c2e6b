"""LoRA resolution for the Ingress: from a client's reference to a found and checked file, local or remote.

resolver = LoraResolver(library, sources, card)
found = await resolver.resolve("hf://org/repository", token=None, expert=Expert.HIGH, strict=True)
lora = found.pinned(Expert.HIGH, multiplier=1.0)    # the LoraFile of a render's spec
report = (await resolver.inspect("a.safetensors", token=None, expert=None, norms=False)).report
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TypeVar

from pydantic import SecretStr

from serve_app.batching import SharedAnswers
from serve_app.caching import SingleFlightCache
from serve_app.loras import adapter_files
from serve_app.loras.formats import LoraContents, SafetensorsHeader, parse
from serve_app.loras.formats.scales import ADAPTER_FILE, AdapterFile
from serve_app.loras.library import LoraLibrary, ResolvedLora, identified
from serve_app.loras.report import FileReport, describe, inspect_file
from serve_app.loras.sources import Located, LoraSources, is_remote
from serve_app.models.card import ModelCard
from serve_app.spec import Expert

Result = TypeVar("Result")

# A pool of its own: a slow server must not use up the threads that everything else shares.
_REMOTE_THREADS = 16
_REMEMBERED_HEADERS = 512  # of remote files; a full-size one takes about half a megabyte


@dataclass(frozen=True, slots=True)
class InspectedLora:
    """A file that could be used, for `expert` where the client said one. `identity` differs for different files."""

    reference: str
    expert: Expert | None
    identity: str
    report: FileReport


@dataclass(frozen=True, slots=True)
class _Parsed:
    header: SafetensorsHeader
    contents: LoraContents


@dataclass(frozen=True, slots=True)
class _LocalFile:
    reference: str
    strict: bool


class LoraResolver:
    """Finds, checks and identifies LoRAs; one per process. Calls for one local file are answered together."""

    def __init__(self, library: LoraLibrary, sources: LoraSources, card: ModelCard) -> None:
        self._library = library
        self._card = card
        self._sources = sources
        self._threads = ThreadPoolExecutor(_REMOTE_THREADS, "lora-source")
        self._parsed_headers: SingleFlightCache[tuple[str, bool, AdapterFile | None], _Parsed] = SingleFlightCache(
            _REMEMBERED_HEADERS
        )
        self._local: SharedAnswers[_LocalFile, ResolvedLora] = SharedAnswers(self._resolve_local)

    def resolve(
        self, reference: str, *, token: SecretStr | None, expert: Expert | None, strict: bool
    ) -> asyncio.Future[ResolvedLora]:
        """Return the LoRA that `reference` names now; a file that is replaced gets another `content`.

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
        """Return what the file that `reference` names holds, mostly from its header; raises as `resolve`.

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
            report = self._inspect_local(located.path, located.reference, expert, norms)
        else:
            parsed = self._parsed(located, secret, strict=False)
            report = describe(parsed.header, parsed.contents, located.file_name, self._card, expert=expert)
        return InspectedLora(located.reference, expert, located.location, report)

    def _inspect_local(self, path: Path, name: str, expert: Expert | None, norms: bool) -> FileReport:
        beside = self._library.beside(name)
        checked = None if norms else self._library.known(path, beside)
        if checked is None:
            return inspect_file(path, name, self._card, expert=expert, strict=False, norms=norms, beside=beside)
        file_name = PurePosixPath(name).name
        return describe(checked.header, checked.contents, file_name, self._card, expert=expert, alphas=checked.alphas)

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
        return await self._in_thread(file.reference, partial(self._library.find, file.reference, strict=file.strict))

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
        return self._parsed_headers.get(
            (located.content, strict, beside),
            lambda: _Parsed(header, parse(header, architecture, name, strict=strict, beside=beside)),
        )
