"""Images on other machines: web servers (guarded against SSRF), the Hugging Face Hub, object stores.

Example:
    sources = RemoteImages(ImagePolicy(), ImageLimits())
    data = sources.read("https://host/fox.png", token=None, deadline=Deadline(30))

An image is small, so it is read whole, and pinned by the hash of its bytes. Sizes are checked while reading.
"""

from collections.abc import Iterable
from functools import partial

import httpx2
import obstore
from obstore.exceptions import BaseError, InvalidPathError, PermissionDeniedError, UnauthenticatedError

from serve_app.images.header import ImageLimits, check_size
from serve_app.images.sources.policy import ImageMissing, ImagePolicy
from serve_app.net import Client, Deadline, Forbidden, Transient, retry, ssl_context
from serve_app.net.buckets import BUCKETS, open_bucket, paced
from serve_app.net.hub import HubFile, parse_link, parse_reference

_OK = 200
_GONE = frozenset({404, 410})
_DENIED = frozenset({401, 403, 407, 451})
_BUSY = frozenset({408, 425, 429})
_SERVER_ERROR = 500
_SUFFIX = ".png"  # in examples
_DATASETS = "datasets/"
_MOST_DIGITS = 18  # of a size in bytes


class RemoteImages:
    """Reads images by address. Thread-safe; it blocks, so call it in a thread.

    A `token` is the client's for the Hub. It is sent to no other server, and no error contains it.
    """

    def __init__(self, policy: ImagePolicy, limits: ImageLimits) -> None:
        self._policy = policy
        self._limits = limits
        self._context = ssl_context()

    def read(self, address: str, *, token: str | None, deadline: Deadline) -> bytes:
        """Return the bytes at `address`.

        Raises:
            Forbidden: the policy forbids the address, or one that it redirects to; or it is no address of a file.
            ImageMissing: nothing is there.
            ImageUnusable: it has more bytes than allowed.
            Transient: its server does not deliver it, after retries or at the deadline.
        """
        address = address.strip()
        scheme = address.partition(":")[0].lower()
        if scheme in BUCKETS:
            work = partial(self._from_bucket, address, deadline)
        elif scheme == "hf":
            work = partial(self._from_web, self._hub_url(address), self._own(token), deadline)
        elif scheme in ("http", "https"):
            is_hub = self._policy.trusts(_parsed(address))
            url = parse_link(_parsed(address), _SUFFIX).url(self._policy.hub) if is_hub else address
            work = partial(self._from_web, url, self._own(token) if is_hub else None, deadline)
        else:
            known = ", ".join(f"{scheme}://" for scheme in ("https", "hf", *BUCKETS))
            raise Forbidden(f"{scheme}: is none of the sources of images, which are {known}, base64 and data URLs")
        return retry(work, self._policy, deadline)

    def _own(self, token: str | None) -> str | None:
        service = self._policy.hub_token
        return token or (None if service is None else service.get_secret_value())

    def _hub_url(self, address: str) -> str:
        """Return where the Hub serves `hf://[datasets/]org/repository/file[@revision]`."""
        scheme, _, rest = address.partition("://")
        prefix = _DATASETS if rest.startswith(_DATASETS) else ""
        file = parse_reference(f"{scheme}://{rest.removeprefix(prefix)}", _SUFFIX)
        if file.file is None:
            raise Forbidden("it names a repository and no file in it; write hf://org/repository/file.png@revision")
        return HubFile(prefix + file.repository, file.file, file.revision).url(self._policy.hub)

    def _from_web(self, url: str, token: str | None, deadline: Deadline) -> bytes:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        with (
            Client(self._policy, deadline, self._context) as client,
            client.stream("GET", url, headers=headers) as response,
        ):
            _check_status(response.status_code)
            announced = _length(response.headers.get("content-length", ""))
            return self._gathered(response.iter_raw(), announced, deadline)

    def _from_bucket(self, address: str, deadline: Deadline) -> bytes:
        bucket, key = open_bucket(address, self._policy, deadline)
        try:
            found = obstore.get(bucket, key)
            return self._gathered(paced(found, self._policy), int(found.meta["size"]), deadline)
        except FileNotFoundError:
            raise ImageMissing from None
        except (PermissionDeniedError, UnauthenticatedError):
            raise Forbidden("the service's credentials may not read it, or it does not exist") from None
        except (InvalidPathError, ValueError):
            raise Forbidden("its key is one that cannot exist; check the spelling") from None
        except (BaseError, OSError):  # their texts quote whole responses, signatures included
            raise Transient("its object store cannot be reached, or broke off") from None

    def _gathered(self, chunks: Iterable[bytes], announced: int | None, deadline: Deadline) -> bytes:
        """Return all chunks as one, none of which is read where `announced`, a size in bytes, is too large."""
        if announced is not None:
            check_size(announced, self._limits)
        data = bytearray()
        for chunk in chunks:
            data += chunk
            check_size(len(data), self._limits)
            if deadline.left() <= 0:
                raise Transient("its server took too long to send it")
        if announced is not None and len(data) < announced:
            raise Transient("its server broke off the connection")
        return bytes(data)


def _check_status(status: int) -> None:
    if status == _OK:
        return
    if status in _GONE:
        raise ImageMissing
    if status in _DENIED:
        raise Forbidden(
            f"its server denies access ({status}); for the Hub, send hf_token of an account that may read it"
        )
    if status in _BUSY or status >= _SERVER_ERROR:
        raise Transient(f"its server answers {status}")
    raise Forbidden(f"its server answers {status}; check the address")


def _length(text: str) -> int | None:
    """Return the value of Content-Length; None if it is missing or malformed."""
    digits = text.strip()
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= _MOST_DIGITS else None


def _parsed(address: str) -> httpx2.URL:
    try:
        return httpx2.URL(address)
    except (httpx2.InvalidURL, ValueError):
        raise Forbidden("it is no valid URL; check the spelling") from None
