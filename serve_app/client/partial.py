"""Resumable downloads: a partial file that grows over broken connections (Range, If-Range), and is kept once verified.

A download that was cut off goes on where it ended, also in another process: the bytes lie in `NAME.part`.
"""

import hashlib
from http import HTTPStatus
from pathlib import Path

import httpx2

from serve_app.api.schemas.answers import Video
from serve_app.errors import DownloadDamaged


class PartialFile:
    """What has arrived so far of one video. Every method blocks: in a coroutine, call it in a thread."""

    def __init__(self, video: Video, path: Path) -> None:
        self._video = video
        self._path = path
        self._part = path.with_name(f"{path.name}.part")

    @property
    def complete(self) -> bool:
        """Return whether every byte is there."""
        return self._video.size is not None and self._size() == self._video.size

    def headers(self) -> dict[str, str]:
        """Return the headers that ask for the rest; for the whole, where nothing tells that the rest would fit."""
        # The offsets are those of the file as it is, not of a compressed form.
        headers = {"Accept-Encoding": "identity"}
        if self._video.sha256 is not None and 0 < self._size() < (self._video.size or 0):
            headers |= {"Range": f"bytes={self._size()}-", "If-Range": f'"{self._video.sha256}"'}
        return headers

    def begin(self, response: httpx2.Response) -> None:
        """Get ready for the body of a response: without 206 it is the file from its start."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if response.status_code != HTTPStatus.PARTIAL_CONTENT:
            self._part.write_bytes(b"")

    def append(self, piece: bytes) -> None:
        """Keep what arrived."""
        with self._part.open("ab") as file:
            file.write(piece)

    def keep(self) -> Path:
        """Verify the file and rename it, so that a file with the final name is always complete.

        Raises:
            DownloadDamaged: it is not what the service has; what arrived is thrown away.
        """
        found, size = self._sha256(), self._size()
        if self._video.sha256 not in (None, found) or self._video.size not in (None, size):
            self._part.unlink()
            raise DownloadDamaged(
                f"what arrived of {self._path.name} has another SHA-256 than the service says; download it again, and "
                "look at proxies in between if that repeats",
                {"expected": self._video.sha256, "found": found, "size": size},
            )
        return self._part.replace(self._path)

    def _size(self) -> int:
        return self._part.stat().st_size if self._part.exists() else 0

    def _sha256(self) -> str:
        with self._part.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
