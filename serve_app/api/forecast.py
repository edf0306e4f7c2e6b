"""Forecasts: the predicted cost of a render, a request's position in the queue, and the time until it ends (ETA).

All values are computed from one read of the store:

    costs = await forecaster.costs()
    costs.predict(spec)  # seconds of one replica
    forecast(await store.requests.standing(request_id), weights).eta_s
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic

from serve_app.costs import CostModel
from serve_app.jobs.load import Amount, Load, ahead_of, wait_s
from serve_app.jobs.records import NewRequest, RenderRecord
from serve_app.jobs.standings import Standing
from serve_app.jobs.states import RenderState
from serve_app.jobs.store import JobStore
from serve_app.plan import ModelPlan

_MODEL_AGE_S = 5.0  # measurements change slowly


@dataclass(frozen=True, slots=True)
class Forecast:
    """The prediction for one request. A field is None if no render of it waits, or if it has ended."""

    queue_position: int | None = None  # renders that will start before its first queued one
    eta_s: float | None = None  # until its last render ends


class Forecaster:
    """Reads the measurements of all Generators from the store, and keeps the cost model for a few seconds."""

    def __init__(self, plan: ModelPlan, store: JobStore) -> None:
        self._plan = plan
        self._store = store
        self._model: CostModel | None = None
        self._read_at = 0.0
        self._reading = asyncio.Lock()

    async def costs(self) -> CostModel:
        """Return the cost model, at most a few seconds old."""
        if fresh := self._fresh():
            return fresh
        async with self._reading:  # single-flight: one caller reads, the others use the result
            return self._fresh() or await self._read()

    def _fresh(self) -> CostModel | None:
        return self._model if monotonic() - self._read_at <= _MODEL_AGE_S else None

    async def _read(self) -> CostModel:
        measured = await self._store.costs(self._plan.cost_name)
        self._model = CostModel(self._plan.card, self._plan.profile, measured)
        self._read_at = monotonic()
        return self._model


def forecast(standing: Standing, weights: Mapping[str, float]) -> Forecast:
    """Return when the request starts and when it will have ended, if nothing else is submitted.

    `weights` are the shares of the tenants, 1 for those not named.
    """
    record, place = standing.record, standing.place
    if place is None:
        return Forecast(
            eta_s=max((_remaining_s(r) for r in record.renders if r.state is RenderState.PROCESSING), default=None)
        )
    queued = [render for render in record.renders if render.state is RenderState.QUEUED]
    siblings = Amount(len(queued) - 1, sum(render.cost_s for render in queued[:-1]))
    first = ahead_of(place.load, record.line, place.ahead, weights)
    last = ahead_of(place.load, record.line, place.ahead + siblings, weights)
    return Forecast(first.renders, wait_s(place.load, last) + queued[-1].cost_s)


def forecast_of_new(request: NewRequest, load: Load, weights: Mapping[str, float]) -> Forecast:
    """Return when a request that is accepted now would start, and when it would have ended."""
    in_line = load.lines.get(request.line, Amount())
    others = Amount(len(request.costs) - 1, sum(request.costs[:-1]))
    first = ahead_of(load, request.line, in_line, weights)
    last = ahead_of(load, request.line, in_line + others, weights)
    return Forecast(first.renders, wait_s(load, last) + request.costs[-1])


def _remaining_s(render: RenderRecord) -> float:
    return render.cost_s * (1 - render.steps_done / render.spec.sample_steps)
