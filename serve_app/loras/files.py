"""LoRA files for a Generator, content-addressed: on this node's disk, checked once, and pinned to the accepted bytes.

Only what a pipeline lacks has to be held, and only while it is read:

    with files.hold(lora, strict=True, token=None) as on_disk:
        rendered = pipeline.render(spec, {lora.content: on_disk}, on_step)
"""

import hashlib
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cachetools import LRUCache
from pydantic import SecretStr

from serve_app.errors import (
    LoraChanged,
    LoraInvalid,
    LoraNotFetched,
    LoraNotFound,
    LoraNotLoaded,
    LoraPathRefused,
    LoraSourceUnavailable,
)
from serve_app.loras.formats import CheckedLora, LoraContents, SafetensorsHeader, check_file
from serve_app.loras.sources import LoraSources, is_remote
from serve_app.models.architecture import WanArchitecture
from serve_app.spec import LoraFile

_NOT_FETCHED = (LoraInvalid, LoraNotFound, LoraPathRefused, LoraSourceUnavailable)
_REMEMBERED = 512  # verdicts; one of a full-size file takes about a third of a megabyte
# Time stamps of a file system tick as coarsely as 2 s (FAT). Within one tick a file can change and keep its signature.
_AT_REST_S = 2.0


@dataclass(frozen=True, slots=True)
class _Signature:
    """What `stat` says of a file; changes whenever its content may have. Times are in nanoseconds."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, path: Path) -> Self:
        found = path.stat()
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)

    @property
    def rested_s(self) -> float:
        return (time.time_ns() - self.ctime_ns) / 1e9


@dataclass(frozen=True, slots=True)
class LoraOnDisk:
    """A checked file that holds exactly the accepted bytes. Read tensors from `path`, then call `check_unchanged`."""

    lora: LoraFile
    path: Path
    sha256: str
    header: SafetensorsHeader
    contents: LoraContents
    _signature: _Signature

    def check_unchanged(self) -> None:
        """Raise LoraChanged if the file may hold other bytes than those that were checked."""
        try:
            signature = _Signature.of(self.path)
        except OSError as error:
            raise _unreadable(self.lora, error) from error
        if signature != self._signature:
            raise _changed(self.lora, None)


class LoraFiles:
    """Gives a Generator its LoRA files. Thread-safe; it blocks, so call it in a thread."""

    def __init__(self, sources: LoraSources, architecture: WanArchitecture) -> None:
        """Fetch from `sources`; check against the shapes of `architecture`."""
        self._sources = sources
        self._architecture = architecture
        self._checked: LRUCache[tuple[_Signature | str, bool], CheckedLora] = LRUCache(_REMEMBERED)

    @contextmanager
    def hold(self, lora: LoraFile, *, strict: bool, token: SecretStr | None) -> Iterator[LoraOnDisk]:
        """Keep the file of `lora` on this node's disk while the block runs, downloaded if need be.

        Raises:
            LoraNotFetched: a download failed, or what came is not a usable LoRA.
            LoraChanged: the file is gone, or no longer has the bytes that were accepted.
            LoraNotLoaded: a local file is not a usable LoRA.
        """
        if not is_remote(lora.location):
            yield self._local(lora, strict)
            return
        with ExitStack() as held:  # so that only what fetching raises is worded anew, not what the block does
            try:
                secret = None if token is None else token.get_secret_value()
                fetched = held.enter_context(self._sources.fetch(lora, secret))
                on_disk = self._on_disk(lora, fetched.path, strict, lora.content)
            except _NOT_FETCHED as error:
                details = {"path": lora.reference, "transformer": lora.expert.value, "reason": error.code}
                raise LoraNotFetched(
                    f"{error.message}; the render was accepted on the file's header alone", details
                ) from error
            yield on_disk

    def _local(self, lora: LoraFile, strict: bool) -> LoraOnDisk:
        path = Path(lora.location)
        try:
            on_disk = self._on_disk(lora, path, strict, _Signature.of(path))
        except OSError as error:
            raise _unreadable(lora, error) from error
        except LoraInvalid as error:
            if (now := _digest(lora, path)) != lora.sha256:
                raise _changed(lora, now) from error
            raise _not_usable(lora, error) from error
        if on_disk.sha256 != lora.sha256:
            raise _changed(lora, on_disk.sha256)
        return on_disk

    def _on_disk(self, lora: LoraFile, path: Path, strict: bool, key: _Signature | str) -> LoraOnDisk:
        signature = _Signature.of(path)
        checked = self._checked.get((key, strict))
        if checked is None:
            checked = check_file(path, self._architecture, lora.reference, strict=strict)
            if isinstance(key, str) or signature.rested_s > _AT_REST_S:
                self._checked[key, strict] = checked
        return LoraOnDisk(lora, path, checked.sha256, checked.header, checked.contents, signature)


def _digest(lora: LoraFile, path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(lora, error) from error


def _not_usable(lora: LoraFile, error: LoraInvalid) -> LoraNotLoaded:
    keys, count = error.details["keys"], error.details["count"]
    example = f" (first of {count}: {keys[0]})" if keys else ""
    return LoraNotLoaded(
        f"LoRA '{lora.reference}' cannot be applied to the {lora.expert.label}: {error.details['reason']}{example}",
        {"path": lora.reference, "transformer": lora.expert.value, "keys": keys, "key_count": count},
    )


def _unreadable(lora: LoraFile, error: OSError) -> LoraChanged:
    return LoraChanged(
        f"LoRA '{lora.reference}' can no longer be read ({error.strerror}); put it back or send the request with "
        "another path",
        {"path": lora.reference, "transformer": lora.expert.value, "sha256": lora.sha256},
    )


def _changed(lora: LoraFile, now: str | None) -> LoraChanged:
    return LoraChanged(
        f"LoRA '{lora.reference}' was replaced after the request was accepted; send the request again to use the file "
        "as it is now",
        {"path": lora.reference, "transformer": lora.expert.value, "sha256": lora.sha256, "sha256_now": now},
    )
