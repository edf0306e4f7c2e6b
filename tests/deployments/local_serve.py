"""What the Dispatcher needs of Ray Serve's handle, over Generators in this process."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from collections.abc import Generator as Yields
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol, Self

from ray.serve.exceptions import RequestCancelledError

from deployments.scheduling.residency import FleetMemory
from serve_app.jobs.records import Claim


@dataclass(frozen=True)
class Selection:
    """A replica that was won."""

    replica_id: str


class Response:
    """A call under way, which raises as Serve does where it was canceled."""

    def __init__(self, task: "asyncio.Task[tuple[str, ...]]") -> None:
        self._task = task

    def __await__(self) -> Yields[Any, None, tuple[str, ...]]:
        return self._result().__await__()

    async def _result(self) -> tuple[str, ...]:
        try:
            return await self._task
        except asyncio.CancelledError:
            raise RequestCancelledError from None

    def cancel(self) -> None:
        self._task.cancel()


class LocalReplica(Protocol):
    """What a handle needs of a Generator."""

    def record_routing_stats(self) -> dict[str, Any]: ...

    async def render(self, claim: Claim) -> tuple[str, ...]: ...


class LocalHandle:
    """Gives one free replica to each who waits, best rank first, and one call at a time to each replica."""

    def __init__(self, replicas: Mapping[str, LocalReplica]) -> None:
        self.replicas = dict(replicas)
        self.lost: set[str] = set()  # replicas whose next call ends as if they had died
        self.waiting = 0
        # Serve asks for it every few seconds; here once, so that what comes later is known from renders alone.
        self._published = {name: one.record_routing_stats()["resident"] for name, one in replicas.items()}
        self._busy: set[str] = set()
        self._freed = asyncio.Condition()

    def options(self, *, method_name: str) -> Self:
        assert method_name == "render"
        return self

    @asynccontextmanager
    async def choose_replica(self, fleet: FleetMemory) -> AsyncIterator[Selection]:
        self.waiting += 1
        try:
            async with self._freed:
                await self._freed.wait_for(lambda: self.replicas.keys() - self._busy)
                fleet.saw(self._published)
                replica_id = min(sorted(self.replicas.keys() - self._busy), key=fleet.rank)
                self._busy.add(replica_id)
        finally:
            self.waiting -= 1
        try:
            yield Selection(replica_id)
        finally:
            async with self._freed:
                self._busy.discard(replica_id)
                self._freed.notify_all()

    def dispatch(self, selection: Selection, claim: Claim) -> Response:
        return Response(asyncio.create_task(self._call(selection.replica_id, claim)))

    async def _call(self, replica_id: str, claim: Claim) -> tuple[str, ...]:
        if replica_id in self.lost:
            self.lost.discard(replica_id)
            raise ConnectionError("the replica died")
        return await self.replicas[replica_id].render(claim)
