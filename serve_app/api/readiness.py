"""Readiness: whether renders can run and be stored now; `GET /health` says why not.

Example:
    readiness = Readiness(store, outputs)
    problem = await readiness.problem()  # None: ready
"""

from serve_app.errors import OutputStorageUnavailable, ServiceError, StoreUnavailable
from serve_app.freshness import Fresh
from serve_app.jobs.coordination import OUTPUTS_FAIL
from serve_app.jobs.store import JobStore
from serve_app.outputs import OutputStore
from serve_app.outputs.health import StorageHealth

_WITHIN_S = 1.0  # probes of load balancers have short timeouts
_PAUSE_FRESH_S = 1.0


class Readiness:
    """What prevents renders, checked in the background, so that a probe never waits for a disk or a bucket."""

    def __init__(self, store: JobStore, outputs: OutputStore) -> None:
        self._place = StorageHealth(outputs)
        self._pause = store.leadership(OUTPUTS_FAIL)
        self._paused = Fresh(self._is_paused, lambda _: _PAUSE_FRESH_S)

    async def problem(self) -> ServiceError | None:
        """Return the error that explains why renders do not start now; None if they do."""
        if found := await self._place.known(_WITHIN_S):
            return OutputStorageUnavailable(f"outputs cannot be stored, so no render starts: {found}")
        if await self._paused.soon(_WITHIN_S, default=False):
            return OutputStorageUnavailable("a replica cannot store a finished video, so no render starts; see its log")
        return None

    async def _is_paused(self) -> bool:
        try:
            return await self._pause.is_held()
        except StoreUnavailable:
            return False  # every other answer says that
