"""Content-addressed verdicts on LoRA files: each content is read, hashed, parsed and checked once.

Example:
    library = LoraLibrary(lora_root, card.architecture)
    found = library.find("folder/my_lora_high_noise.safetensors")    # a file of lora_root
    found.sha256, found.contents
    checked = library.read_pinned(path, sha256, "my_lora.safetensors")    # the same file, after its acceptance
    checked = library.check_blob(path, sha256, "hf://org/repository/file.safetensors")    # a file of the cache
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TypeVar

from serve_app.caching import FileSignature, SingleFlightCache
from serve_app.errors import LoraInvalid
from serve_app.files import open_regular
from serve_app.loras import adapter_files, paths
from serve_app.loras.formats import CheckedLora, LoraContents, check_file, read_accepted
from serve_app.loras.formats.adapter_config import AdapterFile
from serve_app.loras.formats.bounds import DEFAULT_HEADER_BYTES
from serve_app.loras.refusals import invalid, renamed
from serve_app.loras.siblings import NO_SIBLINGS, Siblings
from serve_app.loras.sources import is_remote
from serve_app.models.architecture import WanArchitecture
from serve_app.spec import Expert, LoraFile

# Of a full-size file, a verdict takes about half a megabyte, most of it the names of 800 tensors.
_REMEMBERED = 512
# Time stamps of a file system tick as coarsely as 2 s (FAT). Within one tick a file can change and keep its signature.
_AT_REST_S = 2.0

_Verdict = CheckedLora | LoraInvalid
_Id = TypeVar("_Id", FileSignature, str)
_Key = tuple[_Id, bool, AdapterFile | None]  # which bytes; whether strictly; what scales them from beside


@dataclass(frozen=True, slots=True)
class ResolvedLora:
    """A LoRA that passed every check: all checks if it is local, else the checks of its header.

    `location`, `content` and `sha256` are explained at `LoraFile`. `size` is bytes.
    """

    reference: str  # as the client wrote it, without credentials
    location: str
    content: str
    sha256: str | None
    size: int
    file_name: str
    contents: LoraContents

    @property
    def is_remote(self) -> bool:
        """Return whether it comes from a server, so that each node looks for it in its cache, or downloads it."""
        return is_remote(self.location)

    def pinned(self, expert: Expert, multiplier: float) -> LoraFile:
        """Return the file as it is stored in a render's spec."""
        return LoraFile(
            expert=expert,
            reference=self.reference,
            location=self.location,
            content=self.content,
            sha256=self.sha256,
            multiplier=multiplier,
            size=self.size,
            adapter_config=self.contents.adapter_config,
        )


class OtherContent(Exception):
    """A file no longer has the bytes that were accepted. `sha256` is of those it has now."""

    def __init__(self, sha256: str) -> None:
        super().__init__(sha256)
        self.sha256 = sha256


class LoraLibrary:
    """Checks LoRA files and caches the verdicts, good and bad. Thread-safe; calls block, so call it in a thread.

    The key of a verdict is (SHA-256, strict, the `adapter_config.json` beside the file if there is one). A file that
    may change is hashed once per stat signature. A signature identifies the content if the file had not changed for
    `at_rest_s` when it was read. A blob of the cache never changes: its name is its SHA-256, computed during the
    download, so it is never hashed here.
    """

    def __init__(
        self,
        root: Path,
        architecture: WanArchitecture,
        *,
        most_header_bytes: int = DEFAULT_HEADER_BYTES,
        capacity: int = _REMEMBERED,
        at_rest_s: float = _AT_REST_S,
    ) -> None:
        self._root = root
        self._architecture = architecture
        self._at_rest_s = at_rest_s
        self._most_header_bytes = most_header_bytes
        self._by_signature: SingleFlightCache[_Key[FileSignature], _Verdict] = SingleFlightCache(capacity)
        self._by_content: SingleFlightCache[_Key[str], _Verdict] = SingleFlightCache(capacity)
        self._digests: SingleFlightCache[FileSignature, str] = SingleFlightCache(capacity)

    def find(
        self,
        reference: str,
        *,
        strict: bool = True,
        owner: str | None = None,
        siblings: Siblings = NO_SIBLINGS,
    ) -> ResolvedLora:
        """Find, check and identify the file in `lora_root` that `reference` names for that owner.

        Raises:
            LoraPathRefused, LoraNotFound: see `paths.Folders.find`.
            LoraInvalid: the file would not be applied completely (see `formats.parse` for what `strict` changes), or it
                changed while it was read.
            OSError: the storage failed; the request may be right.
        """
        found = paths.Folders(self._root, owner).find(reference)
        try:
            beside = adapter_files.local(reference, found.folder)
            with siblings.asked_about(found.path, reference):
                checked = self.check(found.path, reference, strict=strict, beside=beside)
        except OSError as error:
            raise paths.unreadable(reference, error) from error
        return ResolvedLora(
            reference=reference,
            location=str(found.path),
            content=identified(checked.sha256, checked.contents),
            sha256=checked.sha256,
            size=checked.header.file_size,
            file_name=PurePosixPath(reference).name,  # the target of a symlink may have a name that says nothing
            contents=checked.contents,
        )

    @property
    def most_header_bytes(self) -> int:
        """Return the size of the longest header that is read, in bytes."""
        return self._most_header_bytes

    def beside(self, reference: str, owner: str | None = None) -> AdapterFile | None:
        """Return the `adapter_config.json` beside the file that `reference` names for that owner; None without one.

        Raises:
            LoraPathRefused, LoraNotFound: see `paths.Folders.find`.
            LoraInvalid: it cannot be read as one.
            OSError: the storage failed.
        """
        return adapter_files.local(reference, paths.Folders(self._root, owner).find(reference).folder)

    def check(self, path: Path, name: str, *, strict: bool = True, beside: AdapterFile | None = None) -> CheckedLora:
        """Check the file at `path`, which may change; calls for one file share the work. `name` is for errors.

        Raises:
            LoraInvalid: it is no LoRA for this model, or it changed while it was read.
            OSError: it cannot be read.
        """
        signature = FileSignature.of(path)
        rested = signature.rested_s >= self._at_rest_s
        verdict = self._by_signature.get(
            (signature, strict, beside),
            lambda: self._read_signed(path, signature, name, strict, beside),
            keep=lambda _: rested and FileSignature.of(path) == signature,
        )
        if rested and isinstance(verdict, CheckedLora):
            self._by_content.put((verdict.sha256, strict, beside), verdict)
        return _accepted(verdict, name)

    def known(self, path: Path, beside: AdapterFile | None = None) -> CheckedLora | None:
        """Return the good verdict on the file at `path`, strict or not, if there is one already; nothing is read.

        Raises:
            OSError: the file's status cannot be read.
        """
        signature = FileSignature.of(path)
        for strict in (False, True):  # what is strictly accepted has nothing to leave out, so both are the same
            verdict = self._by_signature.peek((signature, strict, beside))
            if isinstance(verdict, CheckedLora):
                return verdict
        return None

    def check_blob(
        self, path: Path, sha256: str, name: str, *, strict: bool = True, beside: AdapterFile | None = None
    ) -> CheckedLora:
        """Check the file at `path`, whose bytes are known to have that SHA-256 and never change.

        Raises:
            LoraInvalid: it is no LoRA for this model.
            OSError: it cannot be read.
        """
        verdict = self._by_content.get((sha256, strict, beside), lambda: self._read(path, name, strict, sha256, beside))
        return _accepted(verdict, name)

    def read_pinned(
        self, path: Path, sha256: str, name: str, *, strict: bool = True, beside: AdapterFile | None = None
    ) -> CheckedLora:
        """Return the verdict on the file at `path`, which passed `check` when it had that SHA-256, if it still has it.

        It hashes the file and reads its header, but does not check its values again.

        Raises:
            OtherContent: it has another SHA-256 now.
            LoraInvalid: it is no LoRA for this model.
            OSError: it cannot be read.
        """
        signature = FileSignature.of(path)

        def at_rest(_: object) -> bool:
            return signature.rested_s >= self._at_rest_s and FileSignature.of(path) == signature

        now = self._digests.get(signature, lambda: _digest(path), keep=at_rest)
        if now != sha256:
            raise OtherContent(now)
        most = self._most_header_bytes
        read = partial(
            read_accepted,
            path,
            self._architecture,
            name,
            sha256,
            strict=strict,
            beside=beside,
            most_header_bytes=most,
        )
        verdict = self._by_content.get((sha256, strict, beside), lambda: _verdict(read, name), keep=at_rest)
        return _accepted(verdict, name)

    def _read_signed(
        self, path: Path, signature: FileSignature, name: str, strict: bool, beside: AdapterFile | None
    ) -> _Verdict:
        other = self._by_signature.peek((signature, not strict, beside))
        verdict = self._read(path, name, strict, other.sha256 if isinstance(other, CheckedLora) else None, beside)
        if FileSignature.of(path) != signature:
            return invalid(name, "it changed while it was read; retry when its copy has finished")
        return verdict

    def _read(self, path: Path, name: str, strict: bool, sha256: str | None, beside: AdapterFile | None) -> _Verdict:
        most = self._most_header_bytes
        read = partial(
            check_file,
            path,
            self._architecture,
            name,
            strict=strict,
            sha256=sha256,
            beside=beside,
            most_header_bytes=most,
        )
        return _verdict(read, name)


def identified(blob: str, contents: LoraContents) -> str:
    """Return `LoraFile.content`: what identifies the bytes, and what scales them from beside the file."""
    if contents.adapter_config is None:
        return blob
    return f"{blob}+{hashlib.sha256(contents.adapter_config.encode()).hexdigest()[:16]}"


def _digest(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _verdict(read: Callable[[], CheckedLora], name: str) -> _Verdict:
    try:
        return read()
    except LoraInvalid as error:
        return renamed(error, name)  # a copy to keep: without the traceback, whose frames hold the file's bytes


def _accepted(verdict: _Verdict, name: str) -> CheckedLora:
    if isinstance(verdict, LoraInvalid):
        raise renamed(verdict, name)  # one of the caller's own: a shared exception collects everyone's tracebacks
    return verdict
