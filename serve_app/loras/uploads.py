"""Uploaded LoRA files in `lora_root`: checked before a request can name them, moved into place atomically.

Example:
    incoming = Incoming(lora_root)
    incoming.append(b"...")                     # as it arrives, into a file that no request can name
    check(incoming.path, "my/style.safetensors", cards, most_header_bytes)
    incoming.keep(place, overwrite=False)       # True; False if the same file was there already
    incoming.discard()                          # in any case

Every call blocks: make them in a thread.
"""

import hashlib
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from serve_app.errors import LoraExists, LoraInvalid
from serve_app.loras.inspection import look_into
from serve_app.models.card import ModelCard

_FOLDER = ".uploads"  # hidden, so that it is neither listed nor named; in lora_root, so that a rename is enough
_LEFT_OVER_S = 86_400  # an older file there belongs to a process that has died


class Incoming:
    """A file that is arriving."""

    def __init__(self, root: Path) -> None:
        folder = root / _FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        self.path = folder / f"{uuid4()}.part"
        self.size = 0
        self._file = self.path.open("xb")
        self._digest = hashlib.sha256()

    def append(self, piece: bytes) -> None:
        """Append bytes as they arrive."""
        self._file.write(piece)
        self._digest.update(piece)
        self.size += len(piece)

    def close(self) -> None:
        """Flush the file to the disk, before it gets its name."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def keep(self, place: Path, *, overwrite: bool) -> bool:
        """Give the file its final name, atomically; return False if the same file has that name already.

        Raises:
            LoraExists: another file has that name, and `overwrite` is off.
        """
        place.parent.mkdir(parents=True, exist_ok=True)
        if overwrite:
            self.path.replace(place)
            return True
        try:
            place.hardlink_to(self.path)
        except FileExistsError:
            if self._is_same(place):
                return False
            raise LoraExists(
                "another file has that name; choose another one, or send ?overwrite=true to replace it", {}
            ) from None
        return True

    def discard(self) -> None:
        """Remove the file if it did not get its final name."""
        self._file.close()
        self.path.unlink(missing_ok=True)

    def _is_same(self, place: Path) -> bool:
        if not place.is_file() or place.stat().st_size != self.size:
            return False
        with place.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest() == self._digest.digest()


def check(path: Path, name: str, cards: Sequence[ModelCard], most_header_bytes: int) -> None:
    """Raise LoraInvalid unless one of the models could use the file; errors call the file `name`."""
    problems: list[LoraInvalid] = []
    for card in cards:
        try:
            look_into(path, name, card, most_header_bytes=most_header_bytes)
        except LoraInvalid as error:
            problems.append(error)
        else:
            return
    raise problems[0]


def _sweep(folder: Path) -> None:
    for left in folder.iterdir():
        with suppress(OSError):  # another process may have been faster
            if time.time() - left.stat().st_mtime > _LEFT_OVER_S:
                left.unlink()
