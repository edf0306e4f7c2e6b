"""Cache of the memory needs that this and other replicas have measured; refreshed from the store every few minutes."""

import logging
from collections.abc import Mapping
from time import monotonic

from serve_app.errors import StoreUnavailable
from serve_app.jobs.store import JobStore
from serve_app.needs import NeedKey

logger = logging.getLogger("ray.serve.wan")

_FRESH_S = 300.0  # peaks hardly change; the cache mainly serves a replica's start


class KnownNeeds:
    """What renders of one deployment were measured to need of a GPU's memory besides weights."""

    def __init__(self, store: JobStore, deployment: str) -> None:
        self._store = store
        self._deployment = deployment
        self._known: Mapping[NeedKey, int] = {}
        self._read_at: float | None = None

    async def known(self) -> Mapping[NeedKey, int]:
        """Return the most bytes of each key, as of minutes ago; without a store, as they were then."""
        if self._read_at is None or monotonic() - self._read_at > _FRESH_S:
            try:
                self._known = await self._store.needs(self._deployment)
                self._read_at = monotonic()
            except StoreUnavailable as error:  # the plan is then made from what was known before
                logger.warning("measured memory needs were not read: %s", error)
        return self._known
