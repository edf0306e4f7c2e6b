"""Authentication (bearer tokens, RFC 6750): the sender of a key, looked up in the store and cached for seconds.

Example:
    authentication = Authentication(store, settings)
    if await authentication.is_on():
        sender = await authentication.sender(token)  # raises KeyInvalid
    signer = await authentication.links()  # None if keys are off

Requests need a key as soon as a key was ever made or the environment has an admin key, unless the arg `open` is set. A
revoked key is refused after at most `key_cache_s` seconds, in every Ingress.
"""

import hashlib
import hmac
from asyncio import Task
from time import time

from cachetools import TTLCache

from serve_app.access.keys import EVERYTHING, ApiKey, Presented
from serve_app.access.links import LinkSigner
from serve_app.batching import SharedAnswers
from serve_app.errors import KeyInvalid, StoreUnavailable
from serve_app.jobs.ownership import DEFAULT_TENANT, Sender
from serve_app.jobs.store import JobStore
from serve_app.settings import HASHED, Settings
from serve_app.tasks import detached

_REMEMBERED = 10_000  # keys, of some hundred bytes each
_USE_NOTED_S = 60.0  # resolution of `last_used_at`, so that most requests write nothing
_ADMIN_ID = "admin"  # of the key in the environment


class Authentication:
    """Knows senders by their keys. One for each process; use it on one event loop."""

    def __init__(self, store: JobStore, settings: Settings) -> None:
        self._store = store
        self._open = settings.open
        self._admin_sha256 = None if settings.admin_key is None else settings.admin_key.removeprefix(HASHED)
        # By the token's hash, so that no token is kept in memory. Only valid keys: invalid ones would evict them.
        self._known: TTLCache[bytes, ApiKey] = TTLCache(_REMEMBERED, settings.key_cache_s)
        self._found = SharedAnswers(store.keys.presented)
        self._none_yet: TTLCache[None, bool] = TTLCache(1, settings.key_cache_s)
        self._exist = self._admin_sha256 is not None
        self._answered = False
        self._signer: LinkSigner | None = None
        self._noting: set[Task[None]] = set()

    async def is_on(self) -> bool:
        """Return whether requests need a key.

        While the store does not answer, its last answer counts, because no key can be made meanwhile.

        Raises:
            StoreUnavailable: the store has never answered.
        """
        if self._open or self._exist or None in self._none_yet:
            return self._exist and not self._open
        try:
            self._exist = await self._store.keys.exist()
            self._answered = True
        except StoreUnavailable:
            if not self._answered:
                raise
        if not self._exist:
            self._none_yet[None] = True
        return self._exist

    async def sender(self, token: str) -> Sender:
        """Return the sender that a token belongs to.

        Raises:
            KeyInvalid: the token is unknown, revoked or expired; the message does not say which.
            StoreUnavailable: the store did not answer.
        """
        hashed = hashlib.sha256(token.encode()).digest()
        if self._admin_sha256 is not None and hmac.compare_digest(hashed.hex(), self._admin_sha256):
            return Sender(DEFAULT_TENANT, owner=None, scopes=EVERYTHING, key_id=_ADMIN_ID)
        key = self._known.get(hashed)
        if key is None:
            key = await self._looked_up(token)
            self._known[hashed] = key
        if not key.is_valid(time()):
            raise _invalid()
        return Sender(key.tenant, owner=None if key.is_admin else key.tenant, scopes=key.scopes, key_id=key.id)

    async def links(self) -> LinkSigner | None:
        """Return the signer of links to outputs; None if keys are off, so that links need no signature."""
        if not await self.is_on():
            return None
        if self._signer is None:
            self._signer = LinkSigner(await self._store.keys.link_secret())
        return self._signer

    async def _looked_up(self, token: str) -> ApiKey:
        presented = Presented.of(token)
        key = None if presented is None else await self._found.ask(presented)
        if key is None or not key.is_valid(time()):
            raise _invalid()
        if key.last_used_at is None or time() - key.last_used_at > _USE_NOTED_S:
            noting = detached(self._store.keys.used(key.id))
            self._noting.add(noting)
            noting.add_done_callback(self._noted)
        return key

    def _noted(self, noting: "Task[None]") -> None:
        self._noting.discard(noting)
        if not noting.cancelled():
            noting.exception()  # a failure to record the time of use is ignored on purpose


def _invalid() -> KeyInvalid:
    return KeyInvalid("the API key is unknown, revoked or expired; ask the operator of the service for another one")
