"""Image resolution for the Ingress: from a client's reference to bytes that were read, checked and hashed.

    resolver = ImageResolver(image_root, policy, ImageLimits())
    image = await resolver.resolve("https://host/fox.png", token=None, deadline=Deadline(30))
    image.sha256, image.facts.width

A reference is a data URL, an address (`scheme://`), a path inside `image_root` (it has a dot, as file names do and
base64 does not), or else base64.
"""

import asyncio
import hashlib
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import SecretStr

from serve_app.images.decoding import ImageFacts, inspect
from serve_app.images.header import ImageLimits
from serve_app.images.sources import embedded, local
from serve_app.images.sources.policy import ImagePolicy
from serve_app.images.sources.remote import RemoteImages
from serve_app.net import Deadline

Result = TypeVar("Result")

# A pool of its own for what may be slow. A second one for decoding, as each image takes up to 8 bytes for a pixel.
_SOURCE_THREADS = 16
_DECODING_THREADS = 2
_ADDRESS = re.compile(r"\s*[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_LONGEST_PATH = 4096


@dataclass(frozen=True, slots=True)
class ResolvedImage:
    """An image that can be used: the bytes of its file, their SHA-256 in hex, and what they hold."""

    data: bytes
    sha256: str
    facts: ImageFacts


class ImageResolver:
    """Reads, checks and identifies control images; one per process."""

    def __init__(self, root: Path | None, policy: ImagePolicy, limits: ImageLimits) -> None:
        """`root` is where paths lead to; None where paths are off."""
        self._root = root
        self._policy = policy
        self._limits = limits
        self._remote = RemoteImages(policy, limits)
        self._sources = ThreadPoolExecutor(_SOURCE_THREADS, "image-source")
        self._decoders = ThreadPoolExecutor(_DECODING_THREADS, "image-decoding")

    @property
    def most_characters(self) -> int:
        """Return how long a text that holds an image can be."""
        return embedded.most_characters(self._limits)

    def deadline(self) -> Deadline:
        """Return the time that all images of one request may take together."""
        return Deadline(self._policy.total_timeout_s)

    async def resolve(self, reference: str, *, token: SecretStr | None, deadline: Deadline) -> ResolvedImage:
        """Return the image that `reference` names now.

        Raises:
            ImageUnusable: the bytes are no image that this service takes.
            ImageMissing, PathMissing: nothing is there.
            net.Forbidden, PathForbidden: this service does not read that place.
            net.Transient: its server does not deliver it now.
            OSError: the service's own storage failed.
        """
        if _ADDRESS.match(reference):
            data = await _in(self._sources, self._fetch, reference, token, deadline)
        elif _is_path(reference):
            data = await _in(self._sources, local.read, reference, self._root, self._limits)
        else:
            data = await _in(self._decoders, embedded.decode, reference, self._limits)
        return await _in(self._decoders, self._checked, data)

    def _fetch(self, address: str, token: SecretStr | None, deadline: Deadline) -> bytes:
        return self._remote.read(address, token=None if token is None else token.get_secret_value(), deadline=deadline)

    def _checked(self, data: bytes) -> ResolvedImage:
        facts = inspect(data, self._limits)
        return ResolvedImage(data, hashlib.sha256(data).hexdigest(), facts)


def _is_path(reference: str) -> bool:
    return "." in reference and len(reference) <= _LONGEST_PATH and not embedded.is_data_url(reference)


def _in(threads: ThreadPoolExecutor, call: Callable[..., Result], *args: object) -> asyncio.Future[Result]:
    return asyncio.get_running_loop().run_in_executor(threads, call, *args)
