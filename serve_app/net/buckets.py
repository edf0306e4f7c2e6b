"""Object stores by address, through obstore: S3, Google Cloud Storage, Azure Blob Storage.

Example:
    store, key = open_bucket("s3://bucket/folder/file", policy, Deadline(30))
    obstore.get(store, key)

Credentials, regions and endpoints come from the environment variables of each cloud's own tools, as obstore reads them.
"""

import os
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, cast

from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from serve_app.net.guard import Forbidden, HostForbidden, NetPolicy
from serve_app.net.pace import SpeedFloor
from serve_app.net.retry import Deadline
from serve_app.problems import first_problem

if TYPE_CHECKING:
    from obstore import GetResult
    from obstore.store import ClientConfig

Bucket = S3Store | GCSStore | AzureStore

BUCKETS: Mapping[str, type[Bucket]] = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}
_PREFIXES = {"s3": "AWS", "gs": "GOOGLE", "az": "AZURE"}  # of environment variables
_CLIENT_OPTIONS = ("allow_http", "allow_invalid_certificates", "proxy_url", "proxy_ca_certificate", "proxy_excludes")
_AS_THEY_ARRIVE = 1  # smallest chunk in bytes; a larger one would delay the few bytes that a slow server sends
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def open_bucket(address: str, policy: NetPolicy, deadline: Deadline) -> tuple[Bucket, str]:
    """Return the bucket of `address`, whose scheme is one of `BUCKETS`, and the key in it. No request is sent yet.

    Raises:
        HostForbidden: the bucket, as `s3://name`, is not among the policy's hosts.
        Forbidden: the address does not name a file in a bucket, or the bucket cannot be opened.
    """
    scheme, _, rest = address.partition("://")
    bucket, _, key = rest.partition("/")
    place = f"{scheme.lower()}://{bucket}"
    problem = first_problem(
        {
            f"name a bucket and a file in it, as in {scheme}://bucket/folder/file": not (bucket and key),
            "it holds a user name or password; credentials belong in the service's environment": "@" in bucket,
            "its bucket's name is not possible; check the spelling": not _BUCKET.fullmatch(bucket),
        }
    )
    if problem is not None:
        raise Forbidden(problem)
    if not policy.allows(place):
        raise HostForbidden(place)
    try:
        return _opened(scheme.lower(), place, policy, deadline), key
    except (BaseError, ValueError):
        raise Forbidden("its bucket cannot be opened; check its name and the service's environment") from None


def paced(found: "GetResult", policy: NetPolicy) -> Iterator[bytes]:
    """Yield the bytes of an object as they arrive from the network.

    Raises:
        TooSlow: its store sends below the policy's floor on speed.
    """
    floor = SpeedFloor(policy)
    pieces = iter(found.stream(min_chunk_size=_AS_THEY_ARRIVE))
    while True:
        with floor.waiting() as received:
            piece = received(bytes(next(pieces, b"")))
        if not piece:
            return
        yield piece


def _opened(scheme: str, place: str, policy: NetPolicy, deadline: Deadline) -> Bucket:
    timeouts = {
        "connect_timeout": timedelta(seconds=policy.connect_timeout_s),
        "read_timeout": timedelta(seconds=policy.read_timeout_s),
        "timeout": timedelta(seconds=max(deadline.left(), 0.001)),
    }
    return BUCKETS[scheme].from_url(
        place,
        client_options=cast("ClientConfig", {**_environment(scheme), **timeouts}),
        retry_config={"max_retries": 0},  # the caller retries, as with every source
    )


def _environment(scheme: str) -> dict[str, str]:
    """Return the client options in the environment, because obstore ignores them as soon as one option is passed."""
    named = {option: f"{_PREFIXES[scheme]}_{option.upper()}" for option in _CLIENT_OPTIONS}
    return {option: os.environ[name] for option, name in named.items() if name in os.environ}
