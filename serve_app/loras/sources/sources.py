"""All LoRA sources behind one object, chosen by URL scheme: identify a file first, and download it when it is needed.

Example:
    sources = LoraSources(lora_root, SourcePolicy(), LoraCache(directory, max_bytes))
    located = sources.locate("hf://org/repository/file.safetensors")
    header = sources.header(located)
    with sources.fetch(lora) as cached:    # the LoraFile made of it
        cached.path, cached.sha256
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import httpx2

from serve_app.errors import LoraChanged, LoraInvalid, LoraNotFetched, LoraNotFound, LoraPathRefused
from serve_app.loras import paths
from serve_app.loras.cache import CachedFile, DigestMismatch, LoraCache, Partial
from serve_app.loras.formats import SafetensorsHeader, parse_header, read_header
from serve_app.loras.formats.header import header_bytes_needed
from serve_app.loras.refusals import invalid
from serve_app.loras.sources.base import (
    Changed,
    Located,
    OpenAt,
    ReadRequest,
    RemoteSource,
    SourcePolicy,
    identity,
    is_remote,
)
from serve_app.loras.sources.buckets import BucketSource
from serve_app.loras.sources.hub import HubSource
from serve_app.loras.sources.transfer import FIRST_GUESS, download, read_up_to
from serve_app.loras.sources.web import WebSource
from serve_app.loras.sources.wording import attempt, refused, shown, worded
from serve_app.net import Deadline, Forbidden, host_of, ssl_context
from serve_app.net.buckets import BUCKETS
from serve_app.net.hub import parse_reference
from serve_app.spec import Expert, LoraFile

_SUFFIX = ".safetensors"
_TOKEN = re.compile(r"[!-~]+")  # what fits into a header


class LoraSources:
    """Local files, web servers, the Hugging Face Hub and object stores. Thread-safe; calls block: call it in a thread.

    A `token` is the client's for the Hub. It is used for the call and not kept; no error, log line or file contains it.
    """

    def __init__(self, root: Path, policy: SourcePolicy, cache: LoraCache) -> None:
        self._root = root
        self._policy = policy
        self._cache = cache
        context = ssl_context()
        self._hub = HubSource(policy, context)
        web = WebSource(policy, cache, context)
        bucket = BucketSource(policy)
        self._sources: Mapping[str, RemoteSource] = {
            "https": web,
            "http": web,
            "hf": self._hub,
            **dict.fromkeys(BUCKETS, bucket),
        }

    def locate(
        self, reference: str, *, token: str | None = None, expert: Expert | None = None, owner: str | None = None
    ) -> Located:
        """Identify the file that `reference` names now, for that owner if it is a path.

        `expert` chooses among the files of a whole repository.

        Raises:
            LoraPathRefused, LoraNotFound, LoraInvalid: the client must change the request.
            LoraSourceUnavailable: its source does not answer as it should; or there is no room for it.
            OSError: the service's own storage failed.
        """
        if not is_remote(reference):
            return self._local(reference, owner)
        name = shown(reference)
        with worded(name):
            source = self._source(reference, name)
            return source.locate(reference, name, token=_checked(token, name), expert=expert)

    def names_folder(self, reference: str) -> bool:
        """Return whether `reference` names a repository as a whole, of whose files the expert chooses one."""
        try:
            return reference.strip().lower().startswith("hf:") and parse_reference(reference, _SUFFIX).file is None
        except Forbidden:
            return False

    def host(self, reference: str) -> str | None:
        """Return the host that reading `reference` waits for, by which threads are shared out; None for the Hub."""
        host = host_of(reference)
        return None if host.startswith("hf:") or host == host_of(self._policy.hub) else host

    def header(self, located: Located, token: str | None = None) -> SafetensorsHeader:
        """Return the header of the file, from two requests at most for its first bytes.

        Raises:
            LoraInvalid: it is no well-formed safetensors file, or has changed since it was located.
            Others: see `locate`.
        """
        name, most = located.reference, self._policy.max_header_bytes
        if located.path is not None:
            return read_header(located.path, name, most)
        with worded(name):
            secret = _checked(token, name)
            deadline = Deadline(self._policy.locate_timeout_s)
            head = located.head or self._beginning(located, secret, 0, FIRST_GUESS, deadline)
            needed = header_bytes_needed(head, located.size, name, most)
            if needed > len(head):
                head += self._beginning(located, secret, len(head), needed, deadline)
            return parse_header(head, located.size, name, most)

    def beside(self, located: Located, file_name: str, most_bytes: int, token: str | None = None) -> bytes | None:
        """Return the first `most_bytes` + 1 bytes of the file called `file_name` in the same folder, if there is one.

        None also if the server denies access to it, as servers of signed URLs do: a signature is for one file.

        Raises:
            LoraSourceUnavailable: see `locate`.
        """
        address = _sibling(located.location, file_name)
        name = shown(address)
        neighbour = replace(located, reference=name, location=address, content="", head=b"")
        deadline = Deadline(self._policy.locate_timeout_s)
        try:
            with worded(name):
                return self._beginning(neighbour, _checked(token, name), 0, most_bytes + 1, deadline)
        except (LoraNotFound, LoraPathRefused, LoraInvalid):
            return None

    @contextmanager
    def fetch(self, lora: LoraFile, token: str | None = None) -> Iterator[CachedFile]:
        """Hold the remote file on this node's disk while the block runs; download it if it is missing.

        Concurrent callers share one download (single-flight), which is resumed if it was interrupted.

        Raises:
            LoraChanged: the file is gone, or is no longer the one that was accepted.
            LoraNotFetched: it arrived damaged twice.
            LoraPathRefused, LoraInvalid, LoraSourceUnavailable: its source does not deliver it (any more).
            OSError: the node's own storage failed.
        """
        name = shown(lora.reference)
        with ExitStack() as held:  # translates errors of `hold`, but not errors of the caller's block
            with worded(name), _worded_for_render(lora):
                deadline = Deadline(self._policy.total_timeout_s)
                open_at = self._open_at(lora, name, _checked(token, name), deadline)

                def fill(partial: Partial) -> None:
                    download(open_at, partial, self._policy, deadline, name)

                content = lora.sha256 or lora.blob
                file = held.enter_context(self._cache.hold(content, fill, name, wait_s=deadline.left()))
            yield file

    def _local(self, reference: str, owner: str | None) -> Located:
        file = paths.Folders(self._root, owner).find(reference).path
        try:
            found = file.stat()
        except OSError as error:
            raise paths.unreadable(reference, error) from error
        stamp = f"{found.st_dev}.{found.st_ino}.{found.st_mtime_ns}.{found.st_ctime_ns}"
        content = identity(str(file), stamp, found.st_size)
        return Located(reference, str(file), content, None, found.st_size, file.name, path=file)

    def _source(self, reference: str, name: str) -> RemoteSource:
        scheme = reference.strip().partition(":")[0].lower()
        source = self._sources.get(scheme)
        if source is None:
            known = ", ".join(f"{scheme}://" for scheme in self._sources if scheme != "http")
            raise refused(name, f"{scheme}: is none of the sources of LoRAs, which are {known} and paths in lora_root")
        is_link = scheme in ("http", "https") and self._policy.trusts(_parsed(reference.strip(), name))
        return self._hub if is_link else source

    def _beginning(self, located: Located, token: str | None, start: int, stop: int, deadline: Deadline) -> bytes:
        name = located.reference
        source = self._source(located.location, name)
        wanted = ReadRequest(located.location, name, located.content, token, deadline, start, stop)

        def read() -> bytes:
            with source.open(wanted) as part:
                return read_up_to(part, stop)[start - part.start :]

        try:
            return attempt(read, self._policy, deadline, name)
        except Changed:
            raise invalid(name, "it changed while it was read; retry when its upload has finished") from None

    def _open_at(self, lora: LoraFile, name: str, token: str | None, deadline: Deadline) -> OpenAt:
        source = self._source(lora.location, name)
        whole = ReadRequest(lora.location, name, lora.blob, token, deadline)
        return lambda offset: source.open(replace(whole, start=offset))


def _sibling(location: str, file_name: str) -> str:
    """Return the address of another file in the folder of `location`, without the query, which is about one file."""
    scheme, _, rest = location.partition("://")
    path, at, commit = rest.rpartition("@") if scheme == "hf" else (rest.partition("?")[0], "", "")
    folder = path.rpartition("/")[0]
    return f"{scheme}://{folder}/{file_name}{at}{commit}"


def _parsed(address: str, name: str) -> httpx2.URL:
    try:
        return httpx2.URL(address)
    except (httpx2.InvalidURL, ValueError):
        raise refused(name, "it is no valid URL; check the spelling") from None


def _checked(token: str | None, name: str) -> str | None:
    if token and not _TOKEN.fullmatch(token):  # before a library can quote it as an illegal header
        raise refused(name, "hf_token holds characters that no token has; send it again")
    return token


@contextmanager
def _worded_for_render(lora: LoraFile) -> Iterator[None]:
    """Translate errors for a refused request into errors for the end of an accepted render."""
    name = shown(lora.reference)
    try:
        yield
    except (Changed, LoraNotFound):
        raise _changed(name) from None
    except DigestMismatch:
        if lora.location.startswith("hf://"):  # files of a commit never change
            raise LoraNotFetched(f"LoRA {name!r} arrived damaged twice; retry later", {"path": name}) from None
        raise _changed(name) from None


def _changed(name: str) -> LoraChanged:
    return LoraChanged(
        f"LoRA {name!r} was replaced or removed after the request was accepted; send the request again", {"path": name}
    )
