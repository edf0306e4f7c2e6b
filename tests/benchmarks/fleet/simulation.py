"""The event loop of the simulated fleet."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from serve_app.jobs.records import Waiting
from tests.benchmarks.fleet.policies import Policy
from tests.benchmarks.fleet.replicas import Replicas
from tests.benchmarks.fleet.workload import Work

COLD_S = 8.0  # to load a pair that is not ready


@dataclass(frozen=True, slots=True)
class Start:
    """A render that found its replica. Seconds since the first arrival could come."""

    render: Waiting
    replica: int
    at: float
    seconds: float  # of rendering
    cold: bool

    @property
    def wait_s(self) -> float:
        return self.at - self.render.created_at

    @property
    def occupied_s(self) -> float:
        return self.seconds + COLD_S * self.cold

    @property
    def end(self) -> float:
        return self.at + self.occupied_s


class Simulation:
    """One fleet with one policy."""

    def __init__(self, replicas: Replicas, policy: Policy) -> None:
        self._replicas = replicas
        self._policy = policy
        self._waiting: dict[int, Work] = {}
        self._running: list[tuple[float, int, Start]] = []
        self.starts: list[Start] = []

    def run(self, work: Sequence[Work]) -> list[Start]:
        """Render all of it, given in order of arrival; the starts in their order."""
        for arriving in work:
            now = arriving.render.created_at
            self._end_until(now)
            self._waiting[arriving.render.render_id] = arriving
            self._policy.add(arriving.render)
            self._start_all(now)
        self._end_until(float("inf"))
        return self.starts

    def _end_until(self, now: float) -> None:
        while self._running and self._running[0][0] <= now:
            end, _, start = heapq.heappop(self._running)
            self._replicas.free.add(start.replica)
            self._policy.ended(start.render, start.occupied_s)
            self._start_all(end)

    def _start_all(self, now: float) -> None:
        while self._waiting and len(self._replicas.free):
            replica, render = self._policy.place(now)
            seconds = self._waiting.pop(render.render_id).seconds
            cold = not self._replicas.take(replica, render.pair_key)
            start = Start(render, replica, now, seconds, cold)
            self.starts.append(start)
            heapq.heappush(self._running, (start.end, render.render_id, start))
