"""Image resolution for the Ingress: from a client's reference to bytes that were read, checked and hashed.

Example:
    asker = ImageAsker(sender="team-a", owner="team-a")
    resolver = ImageResolver(image_root, policy, ImageLimits(), Bulkhead(ShareLimits()))
    image = await resolver.resolve("https://host/fox.png", deadline=Deadline(30), asker=asker)
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
from functools import partial
from pathlib import Path
from typing import TypeVar

from pydantic import SecretStr

from serve_app.images.decoding import ImageFacts, inspect
from serve_app.images.header import ImageLimits
from serve_app.images.sources import embedded, local
from serve_app.images.sources.policy import ImagePolicy
from serve_app.images.sources.remote import RemoteImages
from serve_app.net import Bulkhead, Deadline, host_of

Result = TypeVar("Result")

# For files of `image_root`, which may lie on a slow disk; and for decoding, as each image takes up to 8 bytes a pixel.
_FILE_THREADS = 4
_DECODING_THREADS = 2
_ADDRESS = re.compile(r"\s*[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_LONGEST_PATH = 4096


@dataclass(frozen=True, slots=True)
class ResolvedImage:
    """An image that can be used: the bytes of its file, their SHA-256 in hex, and what they hold."""

    data: bytes
    sha256: str
    facts: ImageFacts


@dataclass(frozen=True, slots=True)
class ImageAsker:
    """Whose images are read: `sender` has a share of the fetching threads, `owner` a folder of its own in the root."""

    sender: str
    owner: str | None = None  # None: no folder is anyone's own
    token: SecretStr | None = None  # for the Hub


class ImageResolver:
    """Reads, checks and identifies control images; one per process."""

    def __init__(self, root: Path | None, policy: ImagePolicy, limits: ImageLimits, bulkhead: Bulkhead) -> None:
        """`root` is where paths lead to; None if paths are off."""
        self._root = root
        self._policy = policy
        self._limits = limits
        self._bulkhead = bulkhead
        self._remote = RemoteImages(policy, limits)
        self._files = ThreadPoolExecutor(_FILE_THREADS, "image-file")
        self._decoders = ThreadPoolExecutor(_DECODING_THREADS, "image-decoding")

    @property
    def most_characters(self) -> int:
        """Return how long a text that holds an image can be."""
        return embedded.most_characters(self._limits)

    def deadline(self) -> Deadline:
        """Return the time that all images of one request may take together."""
        return Deadline(self._policy.total_timeout_s)

    async def resolve(self, reference: str, *, deadline: Deadline, asker: ImageAsker) -> ResolvedImage:
        """Return the image that `reference` names now.

        Raises:
            ImageUnusable: the bytes are no image that this service takes.
            ImageMissing, PathMissing: nothing is there.
            net.Forbidden, PathForbidden: this service does not read that place.
            net.Transient: its server does not deliver it now.
            TooManyFetches: as many files are being read as the service reads at once.
            OSError: the service's own storage failed.
        """
        if _ADDRESS.match(reference):
            fetch = partial(self._fetch, reference, asker.token, deadline)
            host = None if reference.strip().lower().startswith("hf:") else host_of(reference)
            data = await self._bulkhead.run(fetch, host=host, sender=asker.sender)
        elif _is_path(reference):
            data = await _in(self._files, local.read, reference, self._root, asker.owner, self._limits)
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
