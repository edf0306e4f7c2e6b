"""The LoRA files under `lora_root`: each checked once, and known by its content."""

import time
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Self

from serve_app.errors import LoraInvalid
from serve_app.loras import alphas, contents, paths
from serve_app.loras.architecture import WanArchitecture
from serve_app.loras.layout import check_layout
from serve_app.loras.refusals import invalid, renamed
from serve_app.loras.safetensors_file import read_header


@dataclass(frozen=True, slots=True)
class LoraIdentity:
    """A file that passed every check, pinned to its content. `size` is bytes, `sha256` hex of the whole file."""

    reference: str  # as the client wrote it
    file: Path  # absolute, inside lora_root, no symlinks
    sha256: str
    size: int
    metadata: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Signature:
    """Changes whenever the file's content may have."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, file: Path) -> Self:
        found = file.stat()
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)

    def rested_s(self) -> float:
        """Since the last write; not by mtime, which tools set at will, also into the future."""
        return (time.time_ns() - self.ctime_ns) / 1e9


@dataclass(frozen=True, slots=True)
class _Content:
    sha256: str
    metadata: dict[str, str]


_Verdict = _Content | LoraInvalid


class LoraLibrary:
    """Inspects LoRA files and remembers the verdicts, good and bad. Thread-safe; it blocks, so call it in a thread.

    A verdict holds while the file's stat signature does. It is remembered only for a file that had been at rest for
    `at_rest_s` when it was read: time stamps are coarse, so a write that follows another at once may not change them.
    """

    def __init__(
        self, root: Path, architecture: WanArchitecture, *, capacity: int = 4096, at_rest_s: float = 1.0
    ) -> None:
        self._root = root
        self._architecture = architecture
        self._capacity = capacity
        self._at_rest_s = at_rest_s
        self._lock = Lock()
        self._verdicts: OrderedDict[_Signature, Future[_Verdict]] = OrderedDict()

    def inspect(self, reference: str) -> LoraIdentity:
        """Find, check and identify the file that `reference` names; calls for one file share the work.

        Raises:
            LoraPathRefused, LoraNotFound: see `paths.resolve`.
            LoraInvalid: the file would not be applied completely, or it changed while it was read.
            OSError: the storage failed; the request may be right.
        """
        file = paths.resolve(reference, self._root)
        try:
            signature = _Signature.of(file)
            verdict = self._verdict(signature, file, reference)
        except OSError as error:
            raise paths.unreadable(reference, error) from error
        if isinstance(verdict, LoraInvalid):
            raise renamed(verdict, reference)
        return LoraIdentity(reference, file, verdict.sha256, signature.size, dict(verdict.metadata))

    def _verdict(self, signature: _Signature, file: Path, reference: str) -> _Verdict:
        with self._lock:
            pending = self._verdicts.get(signature)
            mine = pending is None
            if pending is None:
                pending = self._verdicts[signature] = Future()
                if len(self._verdicts) > self._capacity:
                    self._verdicts.popitem(last=False)
            self._verdicts.move_to_end(signature)
        if mine:
            self._settle(pending, signature, file, reference)
        return pending.result()

    def _settle(self, pending: Future[_Verdict], signature: _Signature, file: Path, reference: str) -> None:
        """Answer everyone who waits for `pending`, and forget it unless the answer will stay true."""
        keep = signature.rested_s() >= self._at_rest_s
        try:
            verdict = self._read(file, reference)
            if _Signature.of(file) != signature:
                keep = False
                verdict = invalid(reference, "it changed while it was read; retry when its copy has finished")
            pending.set_result(verdict)
        except BaseException as error:
            keep = False
            pending.set_exception(error)
        if not keep:
            with self._lock:
                if self._verdicts.get(signature) is pending:
                    del self._verdicts[signature]

    def _read(self, file: Path, name: str) -> _Verdict:
        try:
            header = read_header(file, name)
            modules = check_layout(header, self._architecture, name)
            sha256 = contents.verify(file, header, name)
            alphas.check_alphas(file, header, modules, name)
        except LoraInvalid as error:
            return renamed(error, name)  # a copy to keep: without the traceback, whose frames hold the file's bytes
        return _Content(sha256, header.metadata)
