"""Object stores as LoRA sources, through obstore: S3, Google Cloud Storage, Azure Blob Storage."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError, InvalidPathError, PermissionDeniedError, UnauthenticatedError

from serve_app.loras.sources.base import Changed, Located, Part, ReadRequest, RemoteSource, SourcePolicy, identity
from serve_app.loras.sources.wording import attempt, not_found, refused, too_large
from serve_app.net import Deadline, HostForbidden, Transient
from serve_app.net.buckets import Bucket, open_bucket, paced
from serve_app.spec import Expert

if TYPE_CHECKING:
    from obstore import GetResult, ObjectMeta


class BucketSource(RemoteSource):
    """`s3://bucket/key`, `gs://bucket/key`, `az://container/key`.

    Credentials, regions and endpoints come from the environment variables of each cloud's own tools, as obstore reads
    them. A file is identified by its address, entity tag and size.
    """

    def __init__(self, policy: SourcePolicy) -> None:
        self._policy = policy

    def locate(self, reference: str, name: str, *, token: str | None, expert: Expert | None) -> Located:
        """See `RemoteSource`."""
        location = reference.strip()
        deadline = Deadline(self._policy.locate_timeout_s)

        def look() -> Located:
            store, key = self._store(location, name, deadline)
            with _translated(name):
                meta = obstore.head(store, key)
            return Located(
                reference=name,
                location=location,
                content=_identity(location, meta),
                sha256=None,
                size=meta["size"],
                file_name=key.rpartition("/")[2],
            )

        located = attempt(look, self._policy, deadline, name)
        if located.size > self._policy.max_bytes:
            raise too_large(name, located.size, self._policy.max_bytes)
        return located

    @contextmanager
    def open(self, wanted: ReadRequest) -> Iterator[Part]:
        """See `RemoteSource`."""
        store, key = self._store(wanted.location, wanted.name, wanted.deadline)
        with _translated(wanted.name):
            meta = obstore.head(store, key)
            _check(meta, wanted)
            size = meta["size"]
            begin = wanted.start if wanted.start < size else 0  # a range must not be empty
            end = size if wanted.stop is None else min(wanted.stop, size)
            found = obstore.get(store, key, options={"range": (begin, end)}) if end > begin else None
        if found is not None:
            _check(found.meta, wanted)  # it may have changed between the two requests
        yield Part(begin, size, iter(()) if found is None else self._chunks(found, wanted.name))

    def _chunks(self, found: "GetResult", name: str) -> Iterator[bytes]:
        with _translated(name):
            yield from paced(found, self._policy)

    def _store(self, location: str, name: str, deadline: Deadline) -> tuple[Bucket, str]:
        try:
            return open_bucket(location, self._policy, deadline)
        except HostForbidden as error:
            reason = f"{error.host} is none of the buckets that LoRAs may come from (lora_hosts)"
            raise refused(name, reason) from None


def _identity(location: str, meta: "ObjectMeta") -> str:
    return identity(location, meta["e_tag"] or meta["last_modified"].isoformat(), meta["size"])


def _check(meta: "ObjectMeta", wanted: ReadRequest) -> None:
    if wanted.content and _identity(wanted.location, meta) != wanted.content:
        raise Changed


@contextmanager
def _translated(name: str) -> Iterator[None]:
    """Turn what obstore raises into faults without its text, which quotes whole responses, signatures included."""
    try:
        yield
    except FileNotFoundError:
        raise not_found(name) from None
    except (PermissionDeniedError, UnauthenticatedError):
        raise refused(name, "the service's credentials may not read it, or it does not exist") from None
    except (InvalidPathError, ValueError):
        raise refused(name, "its key is one that cannot exist; check the spelling") from None
    except (BaseError, OSError):
        raise Transient("its object store cannot be reached, or broke off") from None
