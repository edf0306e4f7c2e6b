"""The Dispatcher: the one way from the job store to the GPUs."""

import asyncio
import contextvars
import logging
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any

from ray.serve.handle import DeploymentHandle

from deployments.autoscaling import wanted_slots
from deployments.calls import UnderWay
from deployments.choosing import Chooser
from deployments.events import happened
from deployments.fleet import FleetMemory
from deployments.metrics import QueueMetrics
from serve_app.errors import StoreUnavailable
from serve_app.jobs.leadership import DISPATCHER
from serve_app.jobs.notices import listen
from serve_app.jobs.records import Claim
from serve_app.jobs.store import JobStore
from serve_app.plan import ServicePlan

logger = logging.getLogger("ray.serve")

_AFTER_LOSS_S = 1  # before a render goes on: a replica that cannot take one must not use up its attempts at once
_BEATS_PER_LEASE = 3
_HANDOVER_S = 0.5  # for the last dispatches to leave this process


@dataclass(eq=False)
class _Slot:
    """A place at the Generators' handle: it waits for a replica, and then for the render that it gave to it."""

    has_replica: bool = False
    task: asyncio.Task[None] | None = None


class Dispatcher:
    """Keeps a bounded number of slots open at the Generators; a slot that wins a replica then picks its render.

    One of them at a time, by a lease in the store, whatever a rollout does. Nothing that matters is kept in memory: a
    Dispatcher that dies is replaced, and the store knows the rest.
    """

    def __init__(self, plan: ServicePlan, generators: DeploymentHandle) -> None:
        self._built = plan  # by the args alone
        self._plan = plan
        self._store = JobStore(plan.settings.database_url)
        self._leadership = self._store.leadership(DISPATCHER)
        self._generators = generators.options(method_name="render")
        self._fleet = FleetMemory()
        self._chooser = Chooser(self._store, self._fleet, plan.settings)
        self._under_way = UnderWay()
        self._metrics = QueueMetrics()
        self._slots: set[_Slot] = set()
        self._leads_until = 0.0
        self._closing = False
        self._queued = asyncio.Event()
        self._tasks = [self._start(self._run())]
        if self._store.notifies:
            self._tasks.append(self._start(listen(plan.settings.database_url, self._queued)))

    def reconfigure(self, user_config: dict[str, Any] | None) -> None:
        """Take over what `user_config` changes; renders under way are not touched."""
        self._plan = self._built.retuned(user_config)
        self._chooser.retune(self._plan.settings)

    async def queued(self) -> None:
        """Hear that renders were queued."""
        self._queued.set()

    async def canceled(self, request_id: str) -> None:
        """Hear that a request was canceled: the Generators that run it look into the store at once."""
        self._under_way.nudge(request_id)

    async def check_health(self) -> None:
        """Raise if one of the loops has ended, so that Serve replaces this replica."""
        for task in self._tasks:
            if task.done():
                task.result()
                raise RuntimeError("a loop of the dispatcher has ended")

    async def __del__(self) -> None:
        """Called by Serve before it ends the process: no more renders are claimed, and free slots are given back.

        Running renders go on; their Generators write how they end.
        """
        self._closing = True
        for task in [*self._tasks, *(slot.task for slot in self._slots if slot.task and not slot.has_replica)]:
            task.cancel()
        await self._chooser.settled()
        await asyncio.sleep(_HANDOVER_S)
        await self._leadership.resign()
        await self._store.close()

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        # A context of its own: in the caller's, a client that disconnects would cancel the task.
        return asyncio.get_running_loop().create_task(coroutine, context=contextvars.Context())

    async def _run(self) -> None:
        """Wake-ups open slots; the sweep gives back what dead replicas held and finds what wake-ups missed."""
        next_sweep = 0.0
        while True:
            settings = self._plan.settings
            self._queued.clear()
            try:
                if await self._lead():
                    if monotonic() >= next_sweep:
                        await self._store.claims.expire_leases(settings.max_attempts)
                        next_sweep = monotonic() + settings.sweep_s
                    await self._open_slots()
            except StoreUnavailable as error:
                logger.warning("%s", error)
                # While the store was away nobody could renew: living replicas get the time to do so first.
                next_sweep = monotonic() + settings.lease_s
            await happened(self._queued, min(settings.sweep_s, settings.dispatcher_lease_s / _BEATS_PER_LEASE))

    @property
    def _leads(self) -> bool:
        return monotonic() < self._leads_until and not self._closing

    async def _lead(self) -> bool:
        """Become or stay the one Dispatcher that dispatches; False while another one is."""
        lease_s = self._plan.settings.dispatcher_lease_s
        asked = monotonic()
        if self._leads_until - asked > lease_s * (1 - 1 / _BEATS_PER_LEASE):
            return True
        if await self._leadership.hold(lease_s, self._fleet.size):
            self._leads_until = asked + lease_s
        return self._leads

    async def _open_slots(self) -> None:
        load = await self._store.queue.load()
        self._metrics.show(load)
        wanted = wanted_slots(
            busy=sum(slot.has_replica for slot in self._slots),
            queued=load.queued.renders,
            cost_s=load.queued.cost_s + load.running.cost_s,
            target_wait_s=self._plan.settings.target_wait_s,
            alive=self._fleet.size,
            most=self._plan.max_generators,
        )
        if wanted > len(self._slots):
            await self._chooser.look_ahead(load)
        for _ in range(wanted - len(self._slots)):
            slot = _Slot()
            self._slots.add(slot)
            slot.task = self._start(self._serve_while_queued(slot))
            slot.task.add_done_callback(partial(self._close_slot, slot))

    def _close_slot(self, slot: _Slot, task: asyncio.Task[None]) -> None:
        self._slots.discard(slot)
        if task.cancelled():
            return
        if error := task.exception():
            logger.warning("a slot ended: %r; the next sweep opens another", error)
        else:
            self._queued.set()  # what was queued while it closed still needs one

    async def _serve_while_queued(self, slot: _Slot) -> None:
        while await self._serve_one(slot):
            pass

    async def _serve_one(self, slot: _Slot) -> bool:
        """Win a replica, give it the render that suits it, and wait; False where no render was left for it."""
        slot.has_replica = False
        async with self._generators.choose_replica(self._fleet) as replica:
            slot.has_replica = True
            if not self._leads:
                return False
            claim = await self._chooser.claim_for(replica.replica_id, self._plan.settings.lease_s)
            if claim is None:
                return False
            # Inside the block: the slot is held until the replica has answered.
            await self._dispatch(replica, claim)
        return True

    async def _dispatch(self, replica: Any, claim: Claim) -> None:
        started = monotonic()
        response = self._generators.dispatch(replica, claim)
        try:
            resident = await self._under_way.finished(claim.request_id, response)
        except Exception as error:
            logger.warning("render %d was lost with replica %s: %r", claim.render_id, replica.replica_id, error)
            self._fleet.forget(replica.replica_id)
            await asyncio.sleep(_AFTER_LOSS_S)
            await self._store.claims.release(claim, self._plan.settings.max_attempts)
        else:
            if resident is not None:
                self._fleet.learned(replica.replica_id, resident)
        finally:
            self._chooser.ended(claim, monotonic() - started)
