"""The chooser (late binding): claim the render that suits a replica which is already reserved.

It applies the scheduling policy to a bounded part of the queue in the job store.

Example:
    chooser = Chooser(store, "wan22_14b_t2v", fleet, settings)
    claim = await chooser.claim_for("replica 1", lease_s=15)  # None: nothing waits
    ...
    await chooser.foresee("replica 1", ready)  # while it renders: what it would get if it were free now
    chooser.ended(claim, actual_s=41.2)
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from time import time

from deployments.scheduling.fair_share import FairShare
from deployments.scheduling.overtaking import Overtaking
from deployments.scheduling.policy import MOST_PAIRS, MOST_TENANTS, WINDOW, Fleet, Replica, Rules, pick
from deployments.scheduling.residency import FleetMemory
from serve_app.jobs.load import Load
from serve_app.jobs.records import Claim, Foreseen, Line, Waiting
from serve_app.jobs.store import JobStore
from serve_app.settings import Settings

_Turns = Callable[[Iterable[str]], dict[str, float]]


class Chooser:
    """Chooses and claims renders of one model, for one replica at a time, so that each choice knows the previous one.

    It reads a bounded part of the queue: the oldest renders of a few tenants, and the oldest for a few pairs that the
    replica has ready. Its memory is only a hint. It is not stored, and starts empty with each Dispatcher.
    """

    def __init__(self, store: JobStore, model: str, fleet: FleetMemory, settings: Settings) -> None:
        self._queue = store.queue(model)
        self._claims = store.claims
        self._fleet = fleet
        self._turn = asyncio.Lock()
        self._charged: dict[str, FairShare] = {}  # by lease token: where the render was charged
        self._foreseen: dict[str, int] = {}  # by busy replica: the render that it prepares for
        self.retune(settings)

    def retune(self, settings: Settings) -> None:
        """Use other settings from now on; the shares of the tenants start again."""
        self._rules = Rules(settings.affinity_patience_s, settings.age_bound_s)
        self._fair_share = FairShare(settings.tenant_weights)
        self._overtaking = Overtaking(settings.affinity_patience_s)

    async def settled(self) -> None:
        """Wait until no choice is being made."""
        async with self._turn:
            pass

    async def look_ahead(self, load: Load) -> None:
        """Set the pairs of the oldest renders in the fleet's memory, so that the router prefers replicas with them."""
        _, waiting = await self._candidates(load, (), self._fair_share.turns)
        self._fleet.want(render.pair_key for render in waiting)

    async def claim_for(self, replica_id: str, lease_s: float) -> Claim | None:
        """Claim the render that suits the replica; return None if nothing waits."""
        async with self._turn:
            self._foreseen.pop(replica_id, None)
            replica = Replica(replica_id, self._fleet.resident(replica_id))
            waiting, fleet = await self._situation(replica, self._fair_share.turns)
            while waiting:
                choice = pick(waiting, replica, fleet, time(), self._rules)
                claim = await self._claims.claim(choice.render_id, replica_id, lease_s)
                if claim is not None:
                    self._started(choice, claim)
                    return claim
                waiting.remove(choice)  # canceled meanwhile
            return None

    async def foresee(self, replica_id: str, ready: Sequence[str]) -> Foreseen | None:
        """Return what a busy replica would get if it were free now, with the pairs `ready` in memory; claim nothing.

        Each replica is told another render. It is a prediction and binds nobody: `claim_for` does not look at it, so
        late binding, and with it every rule of the policy, holds as if nothing had been foreseen. It does not take a
        turn, so that no choice waits for it.
        """
        replica = Replica(replica_id, tuple(ready))
        waiting, fleet = await self._situation(replica, self._fair_share.foreseen)
        # Between here and the next `await`, nothing else runs: two replicas are never told the same render.
        self._foreseen = {other: told for other, told in self._foreseen.items() if self._fleet.lives(other)}
        self._foreseen.pop(replica_id, None)
        taken = frozenset(self._foreseen.values())
        waiting = [render for render in waiting if render.render_id not in taken]
        if not waiting or not self._fleet.lives(replica_id):  # a replica that drains gets no further render
            return None
        choice = pick(waiting, replica, fleet, time(), self._rules)
        self._foreseen[replica_id] = choice.render_id
        return await self._claims.foresee(choice.render_id)

    def ended(self, claim: Claim, actual_s: float) -> None:
        """Correct the charge of a claim: its replica is free again, after that many seconds."""
        self._foreseen.pop(claim.replica, None)
        self._charged.pop(claim.token).settle(claim.tenant, claim.cost_s, actual_s)

    def _started(self, render: Waiting, claim: Claim) -> None:
        self._fair_share.charge(render.tenant, render.cost_s)
        self._charged[claim.token] = self._fair_share
        self._overtaking.started(render, time())

    async def _situation(self, replica: Replica, of_tenants: _Turns) -> tuple[list[Waiting], Fleet]:
        """Return the candidates for a replica, and what else a choice among them depends on."""
        turns, waiting = await self._candidates(await self._queue.load(), replica.resident, of_tenants)
        return waiting, Fleet(
            elsewhere=self._fleet.elsewhere(replica.replica_id),
            turns=turns,
            overtaken=self._overtaking.before(time()),
            slack=self._fair_share.slack(self._fleet.size, turns, self._rules.patience_s),
        )

    async def _candidates(
        self, load: Load, resident: Sequence[str], of_tenants: _Turns
    ) -> tuple[dict[str, float], list[Waiting]]:
        """Return the turns of the most owed tenants, and their candidates."""
        turns = of_tenants({line.tenant for line in load.lines})
        owed = dict(sorted(turns.items(), key=lambda turn: turn[1])[:MOST_TENANTS])
        lines: list[Line] = [line for line in load.lines if line.tenant in owed]
        return owed, await self._queue.candidates(lines, resident[:MOST_PAIRS], WINDOW)
