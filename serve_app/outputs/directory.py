"""Outputs in a directory, which nodes may share: atomic writes, and no link below the root is ever followed."""

import asyncio
import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Self
from urllib.parse import SplitResult, unquote

from serve_app.caching import FileSignature, SingleFlightCache
from serve_app.errors import OutputNotWritten
from serve_app.files import Fingerprint, NotRegular, open_folder, open_regular
from serve_app.outputs.base import (
    NotAsStored,
    OpenOutput,
    OutputStore,
    StoredFile,
    check_stored,
    checked,
    misconfigured,
)

_PIECE = 1 << 20
_FILES_AT_ONCE = 1000
_REMEMBERED = 4096  # hashes, of a hundred bytes or so each
# Time stamps of a file system tick as coarsely as 2 s (FAT). Within one tick a file can change and keep its signature.
_AT_REST_S = 2.0
_SOMETHING_ELSE = (errno.ELOOP, errno.ENOTDIR, errno.ENXIO)  # a link, a file for a folder, a socket


class Directory(OutputStore, schemes=("file",)):
    """Files in one directory."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._hashes: SingleFlightCache[FileSignature, Fingerprint] = SingleFlightCache(_REMEMBERED)

    @classmethod
    def at(cls, url: SplitResult, *, make: bool) -> Self:
        """See `OutputStore.at`."""
        root = Path(unquote(url.path))
        if url.netloc not in ("", "localhost") or not root.is_absolute():
            raise misconfigured("must name an absolute directory, with three slashes: file:///dir")
        try:
            if make:
                root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise misconfigured(f"is not a directory that can be used: {error.strerror}: {root}") from error
        return cls(root.resolve())

    async def put(self, name: str, source: Path, media_type: str) -> Fingerprint:
        """See `OutputStore.put`."""
        *folders, leaf = checked(name).split("/")
        try:
            return await asyncio.to_thread(self._place, source, tuple(folders), leaf)
        except OSError as error:
            raise OutputNotWritten(
                f"the finished file could not be stored: {error.strerror}", {"name": name}
            ) from error

    async def open(self, name: str, stored: Fingerprint | None) -> OpenOutput:
        """See `OutputStore.open`. The bytes are hashed once for each signature (`stat`) of the file."""
        *folders, leaf = checked(name).split("/")
        return await asyncio.to_thread(self._open, tuple(folders), leaf, stored)

    async def read(self, name: str) -> bytes:
        """See `OutputStore.read`."""
        found = await self.open(name, None)
        with found.stream as stream:
            return await asyncio.to_thread(stream.read)

    def local_path(self, name: str) -> Path:
        """See `OutputStore.local_path`."""
        return self._root / checked(name)

    async def signed_url(self, name: str, expires_s: int) -> str:
        """Raise NotImplementedError."""
        raise NotImplementedError("files of a directory have no URLs; serve them from local_path")

    def location(self, name: str) -> str:
        """See `OutputStore.location`."""
        return str(self.local_path(name))

    async def files(self) -> AsyncIterator[StoredFile]:
        """See `OutputStore.files`. Links are not followed."""
        self._check_root()
        found = self._walk(self._root)
        while batch := await asyncio.to_thread(lambda: list(islice(found, _FILES_AT_ONCE))):
            for file in batch:
                yield file

    async def has(self, name: str) -> bool:
        """See `OutputStore.has`."""
        self._check_root()
        return await asyncio.to_thread(os.path.lexists, self.local_path(name))

    async def delete(self, names: Iterable[str]) -> None:
        """See `OutputStore.delete`."""
        for name in [checked(name) for name in names]:
            *folders, leaf = name.split("/")
            await asyncio.to_thread(self._remove, tuple(folders), leaf)

    def _place(self, source: Path, folders: tuple[str, ...], leaf: str) -> Fingerprint:
        """Copy to a temporary name beside the file, flush it, then rename it: readers never see a part of the file."""
        self._root.mkdir(parents=True, exist_ok=True)
        partial = f".{leaf}.{uuid.uuid4().hex}"
        try:
            with open_folder(self._root, folders, create=True) as folder:
                try:
                    kept = _copy(source, partial, folder)
                    os.replace(partial, leaf, src_dir_fd=folder, dst_dir_fd=folder)
                finally:
                    with contextlib.suppress(OSError):
                        os.unlink(partial, dir_fd=folder)
        except OSError:
            self._prune(folders)
            raise
        return kept

    def _open(self, folders: tuple[str, ...], leaf: str, stored: Fingerprint | None) -> OpenOutput:
        self._check_root()
        try:
            with open_folder(self._root, folders) as folder:
                stream = open_regular(leaf, follow_links=False, folder=folder)
        except NotRegular as error:
            raise NotAsStored(str(error.strerror)) from error
        except OSError as error:
            if error.errno in _SOMETHING_ELSE:
                raise NotAsStored(f"something else is in its place: {error.strerror}") from error
            raise
        try:
            status = os.fstat(stream.fileno())
            if stored is not None:
                self._check(stream, status, stored)
        except BaseException:
            stream.close()
            raise
        return OpenOutput(stream, status)

    def _check(self, stream: BinaryIO, status: os.stat_result, stored: Fingerprint) -> None:
        if status.st_size != stored.size:  # before a byte is read
            raise NotAsStored(f"it has {status.st_size} bytes, and {stored.size} were stored")
        signature = FileSignature.of_status(status)
        found = self._hashes.get(
            signature,
            lambda: Fingerprint.of(stream),
            keep=lambda _: (
                signature.rested_s >= _AT_REST_S and FileSignature.of_status(os.fstat(stream.fileno())) == signature
            ),
        )
        check_stored(found, stored)

    def _remove(self, folders: tuple[str, ...], leaf: str) -> None:
        self._check_root()
        with contextlib.suppress(FileNotFoundError), open_folder(self._root, folders) as folder:
            os.unlink(leaf, dir_fd=folder)
        self._prune(folders)

    def _walk(self, folder: Path) -> Iterator[StoredFile]:
        try:
            with os.scandir(folder) as entries:
                found = list(entries)
        except FileNotFoundError:  # it was removed meanwhile
            return
        for entry in found:
            path = Path(entry.path)
            with contextlib.suppress(FileNotFoundError):
                if entry.is_dir(follow_symlinks=False):
                    yield from self._walk(path)
                elif entry.is_file(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    yield StoredFile(path.relative_to(self._root).as_posix(), status.st_size, status.st_mtime)

    def _check_root(self) -> None:
        """Raise OSError if the root is missing; not FileNotFoundError, which would mean that one file is missing."""
        if not self._root.is_dir():
            raise OSError(errno.ENOTDIR, "the folder of the outputs is not there", str(self._root))

    def _prune(self, folders: tuple[str, ...]) -> None:
        """Remove empty folders; the system refuses to remove others."""
        for depth in range(len(folders), 0, -1):
            with contextlib.suppress(OSError), open_folder(self._root, folders[: depth - 1]) as parent:
                os.rmdir(folders[depth - 1], dir_fd=parent)


def _copy(source: Path, name: str, folder: int) -> Fingerprint:
    """Copy `source` to the new file `name` in `folder`, flush it, and return the size and hash of its bytes."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with source.open("rb") as reader:
        with os.fdopen(os.open(name, flags, 0o666, dir_fd=folder), "wb") as writer:
            shutil.copyfileobj(reader, writer, _PIECE)
            writer.flush()
            os.fsync(writer.fileno())
        reader.seek(0)
        return Fingerprint.of(reader)
