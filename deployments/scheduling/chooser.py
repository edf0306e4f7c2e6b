"""The chooser (late binding): claim the render that suits a replica which is already reserved.

It applies the scheduling policy to a bounded part of the queue in the job store.

Example:
    chooser = Chooser(store, "wan22_14b_t2v", fleet, settings)
    claim = await chooser.claim_for("replica 1", lease_s=15)  # None: nothing waits
    ...
    chooser.ended(claim, actual_s=41.2)
"""

import asyncio
from collections.abc import Sequence
from time import time

from deployments.scheduling.fair_share import FairShare
from deployments.scheduling.overtaking import Overtaking
from deployments.scheduling.policy import MOST_PAIRS, MOST_TENANTS, WINDOW, Fleet, Replica, Rules, pick
from deployments.scheduling.residency import FleetMemory
from serve_app.jobs.load import Load
from serve_app.jobs.records import Claim, Line, Waiting
from serve_app.jobs.store import JobStore
from serve_app.settings import Settings


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
        _, waiting = await self._candidates(load, ())
        self._fleet.want(render.pair_key for render in waiting)

    async def claim_for(self, replica_id: str, lease_s: float) -> Claim | None:
        """Claim the render that suits the replica; return None if nothing waits."""
        async with self._turn:
            resident = self._fleet.resident(replica_id)
            turns, waiting = await self._candidates(await self._queue.load(), resident)
            if not waiting:
                return None
            fleet = Fleet(
                elsewhere=self._fleet.elsewhere(replica_id),
                turns=turns,
                overtaken=self._overtaking.before(time()),
                slack=self._fair_share.slack(self._fleet.size, turns, self._rules.patience_s),
            )
            while waiting:
                choice = pick(waiting, Replica(replica_id, resident), fleet, time(), self._rules)
                claim = await self._claims.claim(choice.render_id, replica_id, lease_s)
                if claim is not None:
                    self._started(choice, claim)
                    return claim
                waiting.remove(choice)  # canceled meanwhile
            return None

    def ended(self, claim: Claim, actual_s: float) -> None:
        """Correct the charge of a claim: its replica is free again, after that many seconds."""
        self._charged.pop(claim.token).settle(claim.tenant, claim.cost_s, actual_s)

    def _started(self, render: Waiting, claim: Claim) -> None:
        self._fair_share.charge(render.tenant, render.cost_s)
        self._charged[claim.token] = self._fair_share
        self._overtaking.started(render, time())

    async def _candidates(self, load: Load, resident: Sequence[str]) -> tuple[dict[str, float], list[Waiting]]:
        """Return the turns of the most owed tenants, and their candidates."""
        turns = self._fair_share.turns({line.tenant for line in load.lines})
        owed = dict(sorted(turns.items(), key=lambda turn: turn[1])[:MOST_TENANTS])
        lines: list[Line] = [line for line in load.lines if line.tenant in owed]
        return owed, await self._queue.candidates(lines, resident[:MOST_PAIRS], WINDOW)
