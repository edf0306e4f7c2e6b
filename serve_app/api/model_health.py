"""Health of each model: whether its Dispatcher is alive, and what waits and runs; read in the background, cached.

Example:
    health = ModelsHealth(store, ["wan22_14b_t2v", "wan22_5b"])
    (await health.now())["wan22_5b"]  # None if the job store does not answer
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from serve_app.errors import StoreUnavailable
from serve_app.freshness import Fresh
from serve_app.jobs.coordination import dispatcher_of
from serve_app.jobs.load import Load
from serve_app.jobs.store import JobStore

_FRESH_S = 1.0
_WITHIN_S = 1.0  # probes of load balancers have short timeouts


@dataclass(frozen=True, slots=True)
class LiveModel:
    """The current state of one model."""

    dispatches: bool  # whether a Dispatcher holds the model's lease, so that its renders start
    load: Load


Live = Mapping[str, LiveModel | None]


class ModelsHealth:
    """Reads the state of all models at most once a second."""

    def __init__(self, store: JobStore, models: Sequence[str]) -> None:
        self._store = store
        self._unknown: Live = dict.fromkeys(models)
        self._live: Fresh[Live] = Fresh(self._look, lambda _: _FRESH_S)

    async def now(self) -> Live:
        """Return the state of each model by its id, a second or so old; None if it is not known."""
        return await self._live.soon(_WITHIN_S, default=self._unknown)

    async def _look(self) -> Live:
        try:
            return {model: await self._look_at(model) for model in self._unknown}
        except StoreUnavailable:
            return self._unknown

    async def _look_at(self, model: str) -> LiveModel:
        dispatches = await self._store.leadership(dispatcher_of(model)).is_held()
        return LiveModel(dispatches, await self._store.queue(model).load())
