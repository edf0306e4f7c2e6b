"""The LoRA files that are on this machine's disks: each checked once, and known by its content."""

import time
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import Self

from serve_app.errors import LoraInvalid
from serve_app.loras import paths
from serve_app.loras.formats import LoraContents, SafetensorsHeader, check_file, parse
from serve_app.loras.refusals import invalid, renamed
from serve_app.models.architecture import WanArchitecture

# Of a full-size file, a verdict takes about a third of a megabyte, most of it the names of 800 tensors.
REMEMBERED_VERDICTS = 512


@dataclass(frozen=True, slots=True)
class LoraIdentity:
    """A file that passed every check, pinned to its content. `size` is bytes, `sha256` hex of the whole file."""

    reference: str  # as the client wrote it
    file: Path  # absolute, no symlinks
    sha256: str
    size: int
    contents: LoraContents

    @property
    def file_name(self) -> str:
        """The last part of the reference; where that is a symlink, the file itself may have no telling name."""
        return PurePosixPath(self.reference).name


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
    contents: LoraContents


_Verdict = _Content | LoraInvalid


@dataclass(frozen=True, slots=True)
class _Question:
    """What a verdict answers."""

    signature: _Signature
    strict: bool


class LoraLibrary:
    """Inspects LoRA files and remembers the verdicts, good and bad. Thread-safe; it blocks, so call it in a thread.

    A verdict holds while the file's stat signature does. It is remembered only for a file that had been at rest for
    `at_rest_s` when it was read: time stamps are coarse, so a write that follows another at once may not change them.
    """

    def __init__(
        self,
        root: Path,
        architecture: WanArchitecture,
        *,
        capacity: int = REMEMBERED_VERDICTS,
        at_rest_s: float = 1.0,
    ) -> None:
        self._root = root
        self._architecture = architecture
        self._capacity = capacity
        self._at_rest_s = at_rest_s
        self._lock = Lock()
        self._verdicts: OrderedDict[_Question, Future[_Verdict]] = OrderedDict()

    def inspect(self, reference: str, *, strict: bool = True) -> LoraIdentity:
        """Find, check and identify the file in `lora_root` that `reference` names; calls for one file share the work.

        Raises:
            LoraPathRefused, LoraNotFound: see `paths.resolve`.
            LoraInvalid: the file would not be applied completely (see `formats.parse` for what `strict` changes), or it
                changed while it was read.
            OSError: the storage failed; the request may be right.
        """
        return self.check(paths.resolve(reference, self._root), reference, strict=strict)

    def check(self, file: Path, name: str, *, strict: bool = True) -> LoraIdentity:
        """Check and identify `file`, which may lie anywhere and is called `name` in errors; raises as `inspect`."""
        try:
            question = _Question(_Signature.of(file), strict)
            verdict = self._verdict(question, file, name)
        except OSError as error:
            raise paths.unreadable(name, error) from error
        if isinstance(verdict, LoraInvalid):
            raise renamed(verdict, name)
        return LoraIdentity(name, file, verdict.sha256, question.signature.size, verdict.contents)

    def check_header(self, header: SafetensorsHeader, name: str, *, strict: bool = True) -> LoraContents:
        """What a file changes whose header alone is known; its values are not checked. Raises LoraInvalid."""
        return parse(header, self._architecture, name, strict=strict)

    def _verdict(self, question: _Question, file: Path, name: str) -> _Verdict:
        with self._lock:
            pending = self._verdicts.get(question)
            mine = pending is None
            if pending is None:
                pending = self._verdicts[question] = Future()
                if len(self._verdicts) > self._capacity:
                    self._verdicts.popitem(last=False)
            self._verdicts.move_to_end(question)
        if mine:
            self._settle(pending, question, file, name)
        return pending.result()

    def _settle(self, pending: Future[_Verdict], question: _Question, file: Path, name: str) -> None:
        """Answer everyone who waits for `pending`, and forget it unless the answer will stay true."""
        keep = question.signature.rested_s() >= self._at_rest_s
        try:
            verdict = self._read(file, name, question.strict)
            if _Signature.of(file) != question.signature:
                keep = False
                verdict = invalid(name, "it changed while it was read; retry when its copy has finished")
            pending.set_result(verdict)
        except BaseException as error:
            keep = False
            pending.set_exception(error)
        if not keep:
            with self._lock:
                if self._verdicts.get(question) is pending:
                    del self._verdicts[question]

    def _read(self, file: Path, name: str, strict: bool) -> _Verdict:
        try:
            checked = check_file(file, self._architecture, name, strict=strict)
        except LoraInvalid as error:
            return renamed(error, name)  # a copy to keep: without the traceback, whose frames hold the file's bytes
        return _Content(checked.sha256, checked.contents)
