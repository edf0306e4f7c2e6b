"""Output store: finished files in a directory, or in an object store (S3, GCS, Azure) through obstore.

    outputs = OutputStore.from_url("s3://bucket/videos")
    await outputs.put("3a9c.../0-1.mp4", Path("/tmp/0.mp4"), "video/mp4")
    await outputs.signed_url("3a9c.../0-1.mp4", expires_s=3600)

Both kinds write atomically: a file appears whole or not at all, and storing a name again replaces it. They differ in
how a client gets at a file: from a local path, or through a signed URL.
"""

import asyncio
import contextlib
import os
import re
import shutil
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Self
from urllib.parse import SplitResult, unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from serve_app.errors import ConfigurationInvalid, OutputNotWritten

_SCHEMES = ("file", "s3", "gs", "az")


class OutputStore(ABC):
    """Files by name. Names are the service's own, such as `{request_id}/{index}-{attempt}.mp4`.

    A name that is not a plain relative path raises ValueError everywhere.
    """

    @staticmethod
    def from_url(url: str) -> "OutputStore":
        """Return the store behind the arg `output_url`: `file:///dir`, `s3://bucket/prefix`, `gs://...`, `az://...`.

        A directory is created if missing. Credentials, regions and endpoints come from the environment variables
        of each cloud's own tools (`AWS_ACCESS_KEY_ID`, `GOOGLE_APPLICATION_CREDENTIALS`,
        `AZURE_STORAGE_ACCOUNT_NAME`, ...), as obstore reads them.

        Raises:
            ConfigurationInvalid: the scheme is unknown, or nothing can be kept at that place.
        """
        parts = urlsplit(url)
        if parts.scheme not in _SCHEMES:
            known = ", ".join(f"{scheme}://" for scheme in _SCHEMES)
            raise _misconfigured(f"must start with one of {known}; {parts.scheme or 'no'} scheme was given")
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise _misconfigured("must be a place only; credentials and options belong in the environment")
        return _Directory.at(parts) if parts.scheme == "file" else _Bucket.at(parts)

    @abstractmethod
    async def put(self, name: str, source: Path, media_type: str) -> None:
        """Store a copy of `source` as `name`; readers see the old file or the new one, never a part.

        Raises:
            OutputNotWritten: with the reason, free of credentials and signed URLs.
        """

    @abstractmethod
    def local_path(self, name: str) -> Path | None:
        """Return the path of the file, whether or not it exists; None where files are reached by `signed_url`."""

    @abstractmethod
    async def signed_url(self, name: str, expires_s: int) -> str:
        """Return a URL that serves the file, ranges included, to anyone who has it, for `expires_s` seconds.

        Raises:
            NotImplementedError: files have a `local_path` here.
            OSError: the store's credentials could not be obtained.
        """

    @abstractmethod
    def location(self, name: str) -> str:
        """Return where the file is, for people: an absolute path, or the full URL with its scheme."""

    @abstractmethod
    async def delete(self, names: Iterable[str]) -> None:
        """Remove these files; one that is gone already is no error.

        Raises:
            OSError: a file could not be removed. Earlier ones are gone; the call can be repeated.
        """


class _Directory(OutputStore):
    """Files in one directory, which nodes may share."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @classmethod
    def at(cls, url: SplitResult) -> Self:
        root = Path(unquote(url.path))
        if url.netloc not in ("", "localhost") or not root.is_absolute():
            raise _misconfigured("must name an absolute directory, with three slashes: file:///dir")
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _misconfigured(f"is not a directory that can be used: {error.strerror}: {root}") from error
        return cls(root.resolve())

    async def put(self, name: str, source: Path, media_type: str) -> None:
        target = self.local_path(name)
        try:
            await asyncio.to_thread(_place, source, target)
        except OSError as error:
            raise OutputNotWritten(
                f"the finished file could not be stored: {error.strerror}", {"name": name}
            ) from error

    def local_path(self, name: str) -> Path:
        return self._root / _checked(name)

    async def signed_url(self, name: str, expires_s: int) -> str:
        raise NotImplementedError("files of a directory have no URLs; serve them from local_path")

    def location(self, name: str) -> str:
        return str(self.local_path(name))

    async def delete(self, names: Iterable[str]) -> None:
        for path in [self.local_path(name) for name in names]:
            await asyncio.to_thread(self._remove, path)

    def _remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        for folder in path.relative_to(self._root).parents[:-1]:
            # The request's folder goes with its last file; until then the system refuses to remove it.
            with contextlib.suppress(OSError):
                (self._root / folder).rmdir()


class _Bucket(OutputStore):
    """Objects under one prefix of a bucket."""

    def __init__(self, objects: S3Store | GCSStore | AzureStore, url: str) -> None:
        self._objects = objects
        self._url = url

    @classmethod
    def at(cls, url: SplitResult) -> Self:
        place = f"{url.scheme}://{url.netloc}{url.path}".rstrip("/")
        try:
            objects = _CLOUDS[url.scheme].from_url(place)
        except (BaseError, ValueError) as error:
            raise _misconfigured(f"cannot be opened: {_first_line(error)}") from None
        return cls(objects, place)

    async def put(self, name: str, source: Path, media_type: str) -> None:
        key = _checked(name)
        try:
            await obstore.put_async(self._objects, key, source, attributes={"Content-Type": media_type})
        except (BaseError, OSError) as error:
            raise OutputNotWritten(
                f"the finished file could not be stored: {_redacted(error)}", {"name": name}
            ) from None  # the cause may quote signatures

    def local_path(self, name: str) -> None:
        _checked(name)

    async def signed_url(self, name: str, expires_s: int) -> str:
        try:
            return await obstore.sign_async(self._objects, "GET", _checked(name), timedelta(seconds=expires_s))
        except BaseError as error:
            raise OSError(f"no signed URL: {_redacted(error)}") from None

    def location(self, name: str) -> str:
        return f"{self._url}/{_checked(name)}"

    async def delete(self, names: Iterable[str]) -> None:
        # One by one: in bulk, stores that report a missing object would skip the ones after it.
        for key in [_checked(name) for name in names]:
            try:
                await obstore.delete_async(self._objects, key)
            except FileNotFoundError:
                continue
            except (BaseError, OSError) as error:
                raise OSError(f"{key} could not be deleted: {_redacted(error)}") from None


_CLOUDS: Mapping[str, type[S3Store | GCSStore | AzureStore]] = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}


def _checked(name: str) -> str:
    """Return `name` if it can only lie inside the store, else raise ValueError."""
    if "\\" in name or "\0" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise ValueError(f"not a name for an output: {name!r}")
    return name


def _place(source: Path, target: Path) -> None:
    """Copy to a name beside `target`, make it durable, then rename: the rename is the only thing readers see."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        with source.open("rb") as reader, partial.open("xb") as writer:
            shutil.copyfileobj(reader, writer, 1 << 20)
            writer.flush()
            os.fsync(writer.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _misconfigured(problem: str) -> ConfigurationInvalid:
    return ConfigurationInvalid(f"output_url {problem}", {"arg": "output_url", "schemes": list(_SCHEMES)})


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


# The parts of an obstore error that are safe to show. The whole text quotes responses, which repeat keys, signatures
# and signed URLs.
_SAFE_PARTS = (
    re.compile(r"Error performing \w+ https?://(?:[^/@\s]*@)?([^/?\s]+)"),  # the host
    re.compile(r"status code: (\d{3} [A-Za-z ]+)"),
    re.compile(r"<Code>(\w+)</Code>"),  # S3, GCS and Azure all answer in XML
    re.compile(r"HTTP error: ([a-z ]+)"),
    re.compile(r'message: "([^"]+)"'),  # the operating system's
    re.compile(r"([\w ]+) \(os error \d+\)"),
)


def _redacted(error: Exception) -> str:
    found = (pattern.search(str(error)) for pattern in _SAFE_PARTS)
    return ", ".join([type(error).__name__, *(match[1] for match in found if match)])
