"""Checks that a file still has the content that a render spec was accepted with."""

import hashlib
import os
import time
from pathlib import Path

from serve_app.errors import LoraChanged
from serve_app.spec import LoraFile

_Signature = tuple[int, int, int, int, int]

# Timestamps of a file system tick as coarsely as 2 s (FAT; most tick every few ms). Within one tick a file can change
# and keep its signature, so the digest of a file that young is not remembered.
_TIMESTAMP_TICK_NS = 2_000_000_000


class PinnedFiles:
    """Remembers digests by what `stat` says of a file, so that an unchanged file is read only once."""

    def __init__(self) -> None:
        self._digests: dict[_Signature, str] = {}

    def verify(self, lora: LoraFile) -> None:
        """Do nothing if the file's SHA-256 is the one in `lora`.

        Raises:
            LoraChanged: the file is gone, cannot be read, or has another content.
        """
        details = {"path": lora.reference, "transformer": lora.expert.value, "sha256": lora.sha256}
        try:
            digest = self._digest(Path(lora.location))
        except OSError as error:
            raise LoraChanged(
                f"LoRA '{lora.reference}' can no longer be read ({error.strerror}); put it back or send the request "
                "with another path",
                details,
            ) from error
        if digest != lora.sha256:
            raise LoraChanged(
                f"LoRA '{lora.reference}' was replaced after the request was accepted; send the request again to use "
                "the file as it is now",
                {**details, "sha256_now": digest},
            )

    def _digest(self, path: Path) -> str:
        with path.open("rb") as file:
            before = _signature(file.fileno())
            if before in self._digests:
                return self._digests[before]
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            settled = time.time_ns() - before[-1] > _TIMESTAMP_TICK_NS
            if settled and _signature(file.fileno()) == before:
                self._digests[before] = digest
        return digest


def _signature(descriptor: int) -> _Signature:
    """Device, inode, size in bytes, and the times of the last change of content and of metadata in ns."""
    stat = os.fstat(descriptor)
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
