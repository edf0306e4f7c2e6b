"""LoRA files for a Generator, content-addressed: on this node's disk, pinned by SHA-256 to the accepted bytes.

Only what a pipeline lacks has to be held, and only while it is read:

    with files.hold(lora, strict=True, token=None) as on_disk:
        rendered = pipeline.render(spec, {lora.content: on_disk}, on_step)
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from time import monotonic

from pydantic import SecretStr

from serve_app.caching import FileSignature
from serve_app.errors import (
    LoraChanged,
    LoraInvalid,
    LoraNotFetched,
    LoraNotFound,
    LoraNotLoaded,
    LoraPathRefused,
    LoraSourceUnavailable,
)
from serve_app.files import NotRegular, open_regular, status_in_place
from serve_app.loras.formats import LoraContents, SafetensorsHeader
from serve_app.loras.formats.adapter_config import AdapterFile
from serve_app.loras.library import LoraLibrary, OtherContent
from serve_app.loras.sources import LoraSources, is_remote
from serve_app.spec import LoraFile

_NOT_FETCHED = (LoraInvalid, LoraNotFound, LoraPathRefused, LoraSourceUnavailable)


class Origin(StrEnum):
    """Where the bytes of a LoRA file came from for one render."""

    LOCAL = "local"  # in `lora_root`
    CACHE = "cache"
    DOWNLOAD = "download"


@dataclass(frozen=True, slots=True)
class LoraOnDisk:
    """A checked file with exactly the accepted bytes. Read tensors from `path`, then call `check_unchanged`."""

    lora: LoraFile
    path: Path
    sha256: str
    header: SafetensorsHeader
    contents: LoraContents
    origin: Origin
    fetch_s: float  # seconds until its bytes were on this disk; 0 for a local file
    _signature: FileSignature

    @contextmanager
    def opened(self) -> Iterator[str]:
        """Hold the file open while the block runs, and yield a path that leads to this open file.

        Raises:
            LoraChanged: the file may hold other bytes than those that were checked.
        """
        try:
            with open_regular(self.path) as stream:
                if FileSignature.of_status(os.fstat(stream.fileno())) != self._signature:
                    raise _changed(self.lora, None)
                yield f"/dev/fd/{stream.fileno()}"
        except NotRegular as error:
            raise _unreadable(self.lora, error) from error

    def check_unchanged(self) -> None:
        """Raise LoraChanged if the file may hold other bytes than those that were checked."""
        _check_signature(self.lora, self.path, self._signature)


class LoraFiles:
    """Gives a Generator its LoRA files. Thread-safe; it blocks, so call it in a thread."""

    def __init__(self, sources: LoraSources, library: LoraLibrary) -> None:
        """Fetch remote files from `sources`; check all of them with `library`."""
        self._sources = sources
        self._library = library

    @contextmanager
    def hold(self, lora: LoraFile, *, strict: bool, token: SecretStr | None) -> Iterator[LoraOnDisk]:
        """Hold the file of `lora` on this node's disk while the block runs; download it if it is missing.

        Raises:
            LoraNotFetched: a download failed, or the downloaded file is not a usable LoRA.
            LoraChanged: the file is gone, or no longer has the bytes that were accepted.
            LoraNotLoaded: a local file is not a usable LoRA.
        """
        if not is_remote(lora.location):
            yield self._local(lora, strict)
            return
        with ExitStack() as held:  # translates errors of the download, but not errors of the caller's block
            try:
                secret, started = None if token is None else token.get_secret_value(), monotonic()
                fetched = held.enter_context(self._sources.fetch(lora, secret))
                fetch_s = monotonic() - started
                signature = FileSignature.of(fetched.path)
                checked = self._library.check_blob(
                    fetched.path, fetched.sha256, lora.reference, strict=strict, beside=_beside(lora)
                )
            except _NOT_FETCHED as error:
                details = {"path": lora.reference, "transformer": lora.expert.value, "reason": error.code}
                raise LoraNotFetched(
                    f"{error.message}; the render was accepted on the file's header alone", details
                ) from error
            except OSError as error:
                raise LoraNotFetched(
                    f"the downloaded copy of LoRA '{lora.reference}' cannot be read ({error.strerror}); look at "
                    "lora_cache_dir, and send the request again",
                    {"path": lora.reference, "transformer": lora.expert.value},
                ) from error
            origin = Origin.DOWNLOAD if fetched.downloaded else Origin.CACHE
            yield LoraOnDisk(
                lora, fetched.path, checked.sha256, checked.header, checked.contents, origin, fetch_s, signature
            )

    def _local(self, lora: LoraFile, strict: bool) -> LoraOnDisk:
        path = Path(lora.location)
        try:
            status = status_in_place(path)  # a link may stand where the file was
            if lora.size not in (None, status.st_size):  # before a byte is read
                raise _changed(lora, None)
            signature = FileSignature.of_status(status)
            checked = self._library.read_pinned(path, lora.blob, lora.reference, strict=strict, beside=_beside(lora))
        except OSError as error:
            raise _unreadable(lora, error) from error
        except OtherContent as error:
            raise _changed(lora, error.sha256) from error
        except LoraInvalid as error:
            _check_signature(lora, path, signature)  # it may have changed after it was hashed
            raise _not_usable(lora, error) from error
        return LoraOnDisk(lora, path, checked.sha256, checked.header, checked.contents, Origin.LOCAL, 0.0, signature)


def _beside(lora: LoraFile) -> AdapterFile | None:
    return None if lora.adapter_config is None else AdapterFile(lora.adapter_config, certain=True)


def _check_signature(lora: LoraFile, path: Path, expected: FileSignature) -> None:
    try:
        signature = FileSignature.of(path)
    except OSError as error:
        raise _unreadable(lora, error) from error
    if signature != expected:
        raise _changed(lora, None)


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
