"""Outputs in an object store (S3, GCS, Azure): objects under one prefix, with the SHA-256 of each in its metadata."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import SplitResult, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from serve_app.errors import OutputNotWritten
from serve_app.files import Fingerprint
from serve_app.outputs.base import OutputStore, StoredFile, check_stored, checked, misconfigured

if TYPE_CHECKING:  # obstore has this name for type checkers only
    from obstore.store import RetryConfig


# An unreachable bucket must not delay an answer, or a cancellation, for the three minutes of obstore's default.
_RETRIES: "RetryConfig" = {"max_retries": 3, "retry_timeout": timedelta(seconds=10)}
_FILES_AT_ONCE = 1000
_NO_BUCKET = "NoSuchBucket"
_ANY_NAME = "0.mp4"  # to sign: nothing is asked of the bucket
_SHA256 = "sha256"  # the key of an object's own metadata


class Bucket(OutputStore, schemes=("s3", "gs", "az")):
    """Objects under one prefix of a bucket."""

    def __init__(self, objects: S3Store | GCSStore | AzureStore, url: str) -> None:
        self._objects = objects
        self._url = url
        self._origin: str | None = None

    @classmethod
    def at(cls, url: SplitResult, *, make: bool) -> Self:
        """See `OutputStore.at`. A bucket is never created."""
        del make
        place = f"{url.scheme}://{url.netloc}{url.path}".rstrip("/")
        try:
            objects = _CLOUDS[url.scheme].from_url(place, retry_config=_RETRIES)
        except (BaseError, ValueError) as error:
            raise misconfigured(f"cannot be opened: {_first_line(error)}") from None
        return cls(objects, place)

    async def put(self, name: str, source: Path, media_type: str) -> Fingerprint:
        """See `OutputStore.put`."""
        key = checked(name)
        try:
            kept = await asyncio.to_thread(_fingerprint, source)
            attributes = {"Content-Type": media_type, _SHA256: kept.sha256}
            await obstore.put_async(self._objects, key, source, attributes=attributes)
        except (BaseError, OSError) as error:
            raise OutputNotWritten(
                f"the finished file could not be stored: {_redacted(error)}", {"name": name}
            ) from None  # the cause may quote signatures
        return kept

    async def open(self, name: str, stored: Fingerprint | None) -> None:
        """Compare the object's size and the SHA-256 in its metadata; see `OutputStore.open`. One HEAD request."""
        key = checked(name)
        try:
            found = await obstore.get_async(self._objects, key, options={"head": True})
        except FileNotFoundError:
            raise FileNotFoundError(f"{key} is not in the bucket") from None
        except (BaseError, OSError) as error:
            raise OSError(f"{key} could not be looked up: {_redacted(error)}") from None
        if stored is not None:
            check_stored(Fingerprint(found.meta["size"], str(found.attributes.get(_SHA256))), stored)

    async def read(self, name: str) -> bytes:
        """See `OutputStore.read`."""
        key = checked(name)
        try:
            found = await obstore.get_async(self._objects, key)
            return bytes(await found.bytes_async())
        except FileNotFoundError:
            raise FileNotFoundError(f"{key} is not in the bucket") from None
        except (BaseError, OSError) as error:
            raise OSError(f"{key} could not be read: {_redacted(error)}") from None

    def local_path(self, name: str) -> None:
        """Return None."""
        checked(name)

    async def signed_url(self, name: str, expires_s: int) -> str:
        """See `OutputStore.signed_url`."""
        try:
            return await obstore.sign_async(self._objects, "GET", checked(name), timedelta(seconds=expires_s))
        except BaseError as error:
            raise OSError(f"no signed URL: {_redacted(error)}") from None

    async def origin(self) -> str:
        """See `OutputStore.origin`. Read from a signed URL: endpoints, regions and styles of addresses decide it."""
        if self._origin is None:
            signed = urlsplit(await self.signed_url(_ANY_NAME, expires_s=60))
            self._origin = f"{signed.scheme}://{signed.netloc}"
        return self._origin

    def location(self, name: str) -> str:
        """See `OutputStore.location`."""
        return f"{self._url}/{checked(name)}"

    async def files(self) -> AsyncIterator[StoredFile]:
        """See `OutputStore.files`. One request for each thousand."""
        try:
            async for chunk in obstore.list(self._objects, chunk_size=_FILES_AT_ONCE):
                for found in chunk:
                    yield StoredFile(found["path"], found["size"], found["last_modified"].timestamp())
        except BaseError as error:
            raise OSError(f"the bucket could not be listed: {_redacted(error)}") from None

    async def has(self, name: str) -> bool:
        """See `OutputStore.has`. One HEAD request."""
        try:
            await self.open(name, None)
        except FileNotFoundError:
            return False
        return True

    async def delete(self, names: Iterable[str]) -> None:
        """See `OutputStore.delete`."""
        # One by one: in bulk, stores that report a missing object would skip the ones after it.
        for key in [checked(name) for name in names]:
            try:
                await obstore.delete_async(self._objects, key)
            except FileNotFoundError as error:
                if _NO_BUCKET in str(error):
                    raise OSError(f"{key} could not be deleted: there is no such bucket") from None
            except (BaseError, OSError) as error:
                raise OSError(f"{key} could not be deleted: {_redacted(error)}") from None


_CLOUDS: Mapping[str, type[S3Store | GCSStore | AzureStore]] = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}


def _fingerprint(source: Path) -> Fingerprint:
    with source.open("rb") as stream:
        return Fingerprint.of(stream)


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
    re.compile(r"\[Errno \d+\] ([\w ]+)"),
)


def _redacted(error: Exception) -> str:
    found = (pattern.search(str(error)) for pattern in _SAFE_PARTS)
    return ", ".join([type(error).__name__, *(match[1] for match in found if match)])
