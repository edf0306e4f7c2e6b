"""The Dispatcher: the one way from the job store to the GPUs."""

import asyncio
import contextvars
import logging
from time import monotonic, time

from ray.serve.handle import DeploymentHandle

from deployments.events import happened
from deployments.scheduling import pick
from serve_app.errors import StoreUnavailable
from serve_app.jobs.records import Claim, Waiting
from serve_app.jobs.store import JobStore
from serve_app.plan import ServicePlan

logger = logging.getLogger("ray.serve")

_AFTER_LOSS_S = 1  # before a render goes on: a replica that cannot take one must not use up its attempts at once
_WINDOW = 256  # waiting renders that a decision looks at; memory does not grow with the queue


class Dispatcher:
    """Keeps a bounded number of slots open at the Generators; a slot that wins a replica then picks its render.

    Nothing that matters is kept in memory: a Dispatcher that dies is replaced, and the store knows the rest.
    """

    def __init__(self, plan: ServicePlan, generators: DeploymentHandle) -> None:
        self._settings = plan.settings
        self._max_slots = plan.max_generators
        self._store = JobStore(plan.settings.database_url)
        self._generators = generators.options(method_name="render")
        self._loaded: dict[str, str] = {}  # replica id -> pair key that its last render left loaded
        self._slots: set[asyncio.Task[None]] = set()
        self._queued = asyncio.Event()
        # A context of its own: in the caller's, a client that disconnects would cancel this task.
        self._supply = asyncio.get_running_loop().create_task(self._run(), context=contextvars.Context())

    async def wake(self) -> None:
        """Say that renders were queued."""
        self._queued.set()

    async def check_health(self) -> None:
        """Raise if the supply of slots has ended, so that Serve replaces this replica."""
        if self._supply.done():
            self._supply.result()
            raise RuntimeError("the dispatcher's loop has ended")

    async def _run(self) -> None:
        """Wake-ups open slots; the sweep gives back what dead replicas held and finds what wake-ups missed."""
        next_sweep = 0.0
        while True:
            self._queued.clear()
            try:
                if monotonic() >= next_sweep:
                    await self._store.expire_leases(self._settings.max_attempts)
                    next_sweep = monotonic() + self._settings.sweep_s
                if len(self._slots) < self._max_slots:
                    self._open_slots(len(await self._store.waiting(self._max_slots)))
            except StoreUnavailable as error:
                logger.warning("%s", error)
                # While the store was away nobody could renew: living replicas get the time to do so first.
                next_sweep = monotonic() + self._settings.lease_s
            await happened(self._queued, self._settings.sweep_s)

    def _open_slots(self, waiting: int) -> None:
        for _ in range(min(waiting, self._max_slots - len(self._slots))):
            slot = asyncio.create_task(self._serve_while_queued(), context=contextvars.Context())
            self._slots.add(slot)
            slot.add_done_callback(self._close_slot)

    def _close_slot(self, slot: asyncio.Task[None]) -> None:
        self._slots.discard(slot)
        if slot.cancelled():
            return
        if error := slot.exception():
            logger.warning("a slot ended: %r; the next sweep opens another", error)
        else:
            self._queued.set()  # what was queued while it closed still needs one

    async def _serve_while_queued(self) -> None:
        while await self._serve_one():
            pass

    async def __del__(self) -> None:
        """Called by Serve before it ends the process: no more renders are claimed, and reserved slots are given back.

        Running renders go on; their Generators write how they end.
        """
        self._supply.cancel()
        for slot in self._slots:
            slot.cancel()
        await asyncio.wait([self._supply, *self._slots])
        await self._store.close()

    async def _serve_one(self) -> bool:
        """Win a replica, give it the render that suits it, and wait; False where no render was left for it."""
        async with self._generators.choose_replica() as replica:
            claim = await self._claim_for(replica.replica_id)
            if claim is None:
                return False
            try:
                # Inside the block: the slot is held until the replica has answered.
                await self._generators.dispatch(replica, claim)
                self._loaded[replica.replica_id] = claim.spec.pair_key
            except Exception as error:
                logger.warning("render %d was lost with replica %s: %r", claim.render_id, replica.replica_id, error)
                self._loaded.pop(replica.replica_id, None)
                await asyncio.sleep(_AFTER_LOSS_S)
                await self._store.release(claim, self._settings.max_attempts)
        return True

    async def _claim_for(self, replica_id: str) -> Claim | None:
        """Claim the most suitable render; another writer may take one first, then the next is tried."""
        waiting = await self._store.waiting(_WINDOW)
        while waiting:
            choice: Waiting = pick(waiting, loaded=self._loaded.get(replica_id), now=time())
            claim = await self._store.claim(choice.render_id, replica_id, self._settings.lease_s)
            if claim is not None:
                return claim
            waiting.remove(choice)
        return None
