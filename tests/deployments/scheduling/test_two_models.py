"""The laws of scheduling with two models on one store: what waits and runs for one changes no choice of the other."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from time import time
from uuid import uuid4

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployments.scheduling.chooser import Chooser
from deployments.scheduling.residency import FleetMemory
from serve_app.jobs.records import NewRequest
from serve_app.jobs.store import JobStore
from serve_app.settings import Settings
from serve_app.spec import Priority
from tests.fixtures.specs import make_spec

REPLICAS = ("r1", "r2")
LEASE_S = 60.0
STEP_S = 0.001  # between two arrivals
AGO_S = 5.0  # when the first came: neither patience nor the bound on age is over, so shares and pairs decide
numbers = count()


@dataclass(frozen=True)
class Arrival:
    """A render, of whichever model."""

    tenant: str
    priority: Priority
    pair: str
    cost_s: float


@dataclass
class Queue:
    """One model with two replicas, and the numbers of its renders as they are chosen."""

    store: JobStore
    model: str
    began: float

    def __post_init__(self) -> None:
        fleet = FleetMemory()
        fleet.saw(dict.fromkeys(REPLICAS, ()))
        self._fleet = fleet
        self._chooser = Chooser(self.store, self.model, fleet, Settings(tenant_weights={"paying": 3.0}))
        self._number_of: dict[str, int] = {}
        self.chosen: list[int] = []

    async def submit(self, arrival: Arrival, number: int) -> None:
        new = NewRequest(
            id=str(uuid4()),
            model=self.model,
            created_at=self.began + STEP_S * number,
            specs=(make_spec(model=self.model, pair=arrival.pair),),
            costs=(arrival.cost_s,),
            tenant=arrival.tenant,
            priority=arrival.priority,
        )
        await self.store.requests.submit(new)
        self._number_of[new.id] = number

    async def choose(self) -> None:
        """Have the next replica win a render, which ends at once where every replica had one."""
        replica = REPLICAS[len(self.chosen) % len(REPLICAS)]
        claim = await self._chooser.claim_for(replica, LEASE_S)
        if claim is not None:
            self.chosen.append(self._number_of[claim.request_id])
            self._fleet.learned(replica, [claim.spec.pair_key])
            self._chooser.ended(claim, claim.cost_s * 1.5)


arrivals = st.lists(
    st.tuples(
        st.booleans(),
        st.builds(
            Arrival,
            tenant=st.sampled_from(["us", "them", "paying"]),
            priority=st.sampled_from(Priority),
            pair=st.sampled_from(["a", "b", "c"]),
            cost_s=st.sampled_from([1.0, 10.0, 100.0]),
        ),
    ),
    max_size=20,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(arrivals=arrivals, before=st.integers(0, 5))
async def test_each_model_chooses_as_if_it_were_alone(
    store: JobStore, arrivals: Sequence[tuple[bool, Arrival]], before: int
) -> None:
    number = next(numbers)
    began = time() - AGO_S
    beside, other, alone = (Queue(store, f"{name}{number}", began) for name in ("beside", "other", "alone"))
    for place, (is_own, arrival) in enumerate(arrivals):
        await asyncio.gather(*(queue.submit(arrival, place) for queue in ([beside, alone] if is_own else [other])))
        if place < before:
            for queue in (beside, other, alone):
                await queue.choose()
    for _ in arrivals:
        for queue in (other, beside, alone):
            await queue.choose()
    assert beside.chosen == alone.chosen
    assert sorted(beside.chosen) == [place for place, (is_own, _) in enumerate(arrivals) if is_own]
    assert sorted(other.chosen) == [place for place, (is_own, _) in enumerate(arrivals) if not is_own]
