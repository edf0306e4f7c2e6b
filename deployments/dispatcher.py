"""The Dispatcher actor: late binding of queued renders to Generators, under a leader lease.

A slot is one open call at the Generators' handle. It waits for a free replica first. Only then it chooses the render
that suits this replica (`deployments.scheduling`), because the best choice depends on the replica. Serve counts waiting
slots as load, so their number also drives autoscaling (`deployments.autoscaling.wanted_slots`).

Example:
    async with generators.choose_replica(fleet) as replica:  # Serve reserves a replica
        claim = await chooser.claim_for(replica.replica_id, lease_s)
        resident = await generators.dispatch(replica, claim)
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any

from ray.serve.exceptions import RequestCancelledError
from ray.serve.handle import DeploymentHandle, DeploymentResponse

from deployments.autoscaling import wanted_slots
from deployments.janitor import Janitor
from deployments.observability.metrics import service_observers
from deployments.scheduling.chooser import Chooser
from deployments.scheduling.residency import FleetMemory
from serve_app.errors import StoreUnavailable
from serve_app.jobs.coordination import OUTPUTS_FAIL, dispatcher_of, listen
from serve_app.jobs.records import Claim, Foreseen
from serve_app.jobs.store import JobStore
from serve_app.logs import about, configure_logging
from serve_app.observers import Loss, Observers
from serve_app.outputs import OutputStore
from serve_app.outputs.health import StorageHealth
from serve_app.plan import ModelPlan
from serve_app.results import GeneratorRuntime
from serve_app.tasks import detached, happened

logger = logging.getLogger("ray.serve.wan")

_AFTER_LOSS_S = 1  # before a lost render is queued again: a broken replica must not use up its attempts quickly
_BEATS_PER_LEASE = 3
_HANDOVER_S = 0.5  # time for the last dispatches to leave this process


class Calls:
    """The running calls to Generators, by request.

    They deliver a cancellation to a busy Generator within milliseconds. A busy Generator accepts no other call, but
    Serve can cancel the running one. The Generator treats this as a hint to ask the store, which alone decides whether
    a render is canceled. So nothing is lost if a call is canceled for another reason.
    """

    def __init__(self) -> None:
        self._calls: defaultdict[str, list[DeploymentResponse]] = defaultdict(list)
        self._nudged: set[DeploymentResponse] = set()

    def nudge(self, request_id: str) -> None:
        """Cancel the request's calls."""
        for call in self._calls.get(request_id, ()):
            self._nudged.add(call)
            call.cancel()

    async def finished(self, request_id: str, call: DeploymentResponse) -> tuple[str, ...] | None:
        """Return the pair keys that the call returns, or None after `nudge`. Raise the errors of the call."""
        self._calls[request_id].append(call)
        try:
            resident: tuple[str, ...] = await call
            return resident
        except RequestCancelledError:
            if call not in self._nudged:
                raise
            return None
        finally:
            self._nudged.discard(call)
            self._calls[request_id].remove(call)
            if not self._calls[request_id]:
                del self._calls[request_id]


@dataclass(eq=False)
class _Slot:
    """One open call at the Generators' handle: it waits for a replica, and then for the end of its render."""

    has_replica: bool = False
    task: asyncio.Task[None] | None = None


class Dispatcher:
    """Keeps a bounded number of slots open at the Generators; a slot that gets a replica then chooses its render.

    Only one Dispatcher dispatches at a time, by a lease in the store, also during a rollout. Its memory holds only
    hints: if a Dispatcher dies, another one continues from the store.
    """

    _opened = False  # whether there is something to close

    def __init__(self, plan: ModelPlan, generators: DeploymentHandle, *, observers: Observers | None = None) -> None:
        configure_logging()
        self._built = plan  # by the args alone
        self._plan = plan
        self._observers = service_observers(plan.settings) if observers is None else observers
        self._store = JobStore(plan.settings.database_url, self._observers.finished)
        self._queue = self._store.queue(plan.card.id)
        outputs = OutputStore.from_url(plan.settings.output_url, make=False)
        self._place = StorageHealth(outputs)
        self._pause = self._store.leadership(OUTPUTS_FAIL)
        self._pausing = False
        self._leadership = self._store.leadership(dispatcher_of(plan.card.id))
        self._generators = generators.options(method_name="render")
        self._fleet = FleetMemory()
        self._chooser = Chooser(self._store, plan.card.id, self._fleet, plan.settings)
        self._calls = Calls()
        self._slots: set[_Slot] = set()
        self._leads_until = 0.0
        self._closing = False
        self._queued = asyncio.Event()
        janitor = Janitor(self._store, outputs)
        self._tasks = [detached(self._run()), detached(janitor.run(lambda: self._plan.settings))]
        if self._store.notifies:
            self._tasks.append(detached(listen(plan.settings.database_url, plan.card.id, self._queued)))
        self._opened = True

    def reconfigure(self, user_config: dict[str, Any] | None) -> None:
        """Apply the changes of `user_config`; renders under way are not touched."""
        self._plan = self._built.retuned(user_config)
        self._chooser.retune(self._plan.settings)

    async def queued(self) -> None:
        """Wake up, because renders were queued."""
        self._queued.set()

    async def canceled(self, request_id: str) -> None:
        """Make the Generators that run the request ask the store at once whether it was canceled."""
        self._calls.nudge(request_id)

    async def fleet(self) -> dict[str, GeneratorRuntime]:
        """Return the last known state of each Generator, by the id of its replica."""
        return self._fleet.snapshot()

    async def foresee(self, replica_id: str, ready: tuple[str, ...]) -> Foreseen | None:
        """Return the render that a busy replica will probably get next, or None; see `Chooser.foresee`.

        A Generator asks, because a busy one accepts no call.
        """
        return await self._chooser.foresee(replica_id, ready) if self._leads else None

    async def check_health(self) -> None:
        """Raise if one of the loops has ended, so that Serve replaces this replica."""
        for task in self._tasks:
            if task.done():
                task.result()
                raise RuntimeError("a loop of the dispatcher has ended")

    def __del__(self) -> Coroutine[Any, Any, None] | None:
        """Return the coroutine that Serve awaits before it ends the process; Serve calls this method by its name."""
        return self.close() if self._opened else None

    async def close(self) -> None:
        """Stop claiming renders, and give free slots back.

        Running renders continue; their Generators write their ends.
        """
        self._opened = False
        self._closing = True
        for task in [*self._tasks, *(slot.task for slot in self._slots if slot.task and not slot.has_replica)]:
            task.cancel()
        await self._chooser.settled()
        await asyncio.sleep(_HANDOVER_S)
        await self._leadership.resign()
        await self._store.close()

    async def _run(self) -> None:
        """Open slots at each wake-up; a sweep gives back claims of dead replicas, and finds missed wake-ups."""
        next_sweep = 0.0
        while True:
            settings = self._plan.settings
            self._queued.clear()
            try:
                if await self._lead():
                    if monotonic() >= next_sweep:
                        await self._sweep()
                        next_sweep = monotonic() + settings.sweep_s
                    await self._open_slots()
            except StoreUnavailable as error:
                logger.warning("%s", error)
                # While the store did not answer, no lease could be renewed. Live replicas get time to do that first.
                next_sweep = monotonic() + settings.lease_s
            await happened(self._queued, min(settings.sweep_s, settings.dispatcher_lease_s / _BEATS_PER_LEASE))

    async def _sweep(self) -> None:
        """Give back what dead replicas held, and tell how long the oldest renders wait."""
        model = self._plan.card.id
        if expired := await self._store.claims.expire_leases(model, self._plan.settings.max_attempts):
            self._observers.lost(model, Loss.LEASE, expired)
        self._observers.oldest(model, await self._queue.oldest_waits_s())

    @property
    def _leads(self) -> bool:
        return monotonic() < self._leads_until and not self._closing

    async def _lead(self) -> bool:
        """Become or stay the one Dispatcher that dispatches; return False while another one is."""
        lease_s = self._plan.settings.dispatcher_lease_s
        asked = monotonic()
        if self._leads_until - asked > lease_s * (1 - 1 / _BEATS_PER_LEASE):
            return True
        if await self._leadership.hold(lease_s, self._fleet.size):
            self._leads_until = asked + lease_s
        return self._leads

    async def _open_slots(self) -> None:
        load = await self._queue.load()
        self._observers.load(self._plan.card.id, load)
        wanted = wanted_slots(
            busy=sum(slot.has_replica for slot in self._slots),
            queued=load.queued.renders,
            cost_s=load.queued.cost_s + load.running.cost_s,
            target_wait_s=self._plan.settings.target_wait_s,
            alive=self._fleet.size,
            most=self._plan.max_generators,
        )
        if wanted > len(self._slots) and await self._paused():
            return
        if wanted > len(self._slots):
            await self._chooser.look_ahead(load)
        for _ in range(wanted - len(self._slots)):
            slot = _Slot()
            self._slots.add(slot)
            slot.task = detached(self._serve_while_queued(slot))
            slot.task.add_done_callback(partial(self._close_slot, slot))

    async def _paused(self) -> bool:
        """Return whether outputs cannot be stored; if so, hold the pause in the store, so that all processes know."""
        if await self._place.problem() is not None:
            self._pausing = await self._pause.hold(self._plan.settings.lease_s, 0)
            return True
        if self._pausing:
            self._pausing = False
            await self._pause.resign()
        return await self._pause.is_held()  # by a Generator that cannot store what it has rendered

    def _close_slot(self, slot: _Slot, task: asyncio.Task[None]) -> None:
        self._slots.discard(slot)
        if task.cancelled():
            return
        if error := task.exception():
            logger.warning("a slot ended: %r; the next sweep opens another", error)
        else:
            self._queued.set()  # a render that was queued while it closed still needs a slot

    async def _serve_while_queued(self, slot: _Slot) -> None:
        while await self._serve_one(slot):
            pass

    async def _serve_one(self, slot: _Slot) -> bool:
        """Get a free replica, give it the render that suits it, and wait; return False if no render was left for it."""
        slot.has_replica = False
        async with self._generators.choose_replica(self._fleet) as replica:
            slot.has_replica = True
            if not self._leads or await self._paused():
                return False
            claim = await self._chooser.claim_for(replica.replica_id, self._plan.settings.lease_s)
            if claim is None:
                return False
            # Inside the block: the slot is held until the replica has answered.
            with about(claim):
                await self._dispatch(replica, claim)
        return True

    async def _dispatch(self, replica: Any, claim: Claim) -> None:
        started = monotonic()
        response = self._generators.dispatch(replica, claim)
        try:
            resident = await self._calls.finished(claim.request_id, response)
        except Exception as error:
            logger.warning("render %d was lost with replica %s: %r", claim.render_id, replica.replica_id, error)
            self._fleet.forget(replica.replica_id)
            self._observers.lost(self._plan.card.id, Loss.CALL, 1)
            await asyncio.sleep(_AFTER_LOSS_S)
            await self._store.claims.release(claim, self._plan.settings.max_attempts)
        else:
            if resident is not None:
                self._fleet.learned(replica.replica_id, resident)
        finally:
            self._chooser.ended(claim, monotonic() - started)
