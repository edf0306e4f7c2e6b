"""What is compared: the service's own policy, and what a fleet without one does."""

import hashlib
from bisect import bisect
from collections import deque
from typing import NamedTuple, Protocol

from deployments.scheduling import MOST_TENANTS, WINDOW, FairShare, Fleet, Overtaking, Replica, Rules, pick
from serve_app.jobs.records import Waiting
from tests.benchmarks.fleet.lines import Lines
from tests.benchmarks.fleet.replicas import Replicas

_POINTS = 50  # on the ring, of each replica


class Placement(NamedTuple):
    """A render, and the free replica that is to start it."""

    replica: int
    render: Waiting


class Policy(Protocol):
    """Keeps the queue, and takes from it."""

    def add(self, render: Waiting) -> None:
        """Take a render that arrives."""

    def place(self, now: float) -> Placement:
        """Take out a render; there is one, and a free replica."""

    def ended(self, render: Waiting, actual_s: float) -> None:
        """Free the replica of a render, which took that many seconds."""


class Ours(Policy):
    """Does what the Dispatcher does, with the same functions."""

    def __init__(self, replicas: Replicas, rules: Rules) -> None:
        self._rules = rules
        self._replicas = replicas
        self._lines = Lines()
        self._fair_share = FairShare({})
        self._overtaking = Overtaking(self._rules.patience_s)

    def add(self, render: Waiting) -> None:
        self._lines.add(render)

    def place(self, now: float) -> Placement:
        replica = self.best_free()
        resident = self._replicas.resident(replica)
        turns = self._fair_share.turns(self._lines.tenants)
        owed = dict(sorted(turns.items(), key=lambda turn: turn[1])[:MOST_TENANTS])
        fleet = Fleet(
            elsewhere=self._replicas.elsewhere(replica),
            turns=owed,
            overtaken=self._overtaking.before(now),
            slack=self._fair_share.slack(self._replicas.count, owed, self._rules.patience_s),
        )
        waiting = self._lines.candidates(owed, resident, WINDOW)
        render = pick(waiting, Replica(str(replica), resident), fleet, now, self._rules)
        self._lines.remove(render)
        self._fair_share.charge(render.tenant, render.cost_s)
        self._overtaking.started(render, now)
        return Placement(replica, render)

    def ended(self, render: Waiting, actual_s: float) -> None:
        self._fair_share.settle(render.tenant, render.cost_s, actual_s)

    def best_free(self) -> int:
        """Return one that `rank` puts first for what the oldest renders want, found without asking them all."""
        free = self._replicas.free
        if len(free) == 1:
            return next(iter(free))
        oldest = self._lines.candidates(self._lines.tenants, (), WINDOW)
        wanted = dict.fromkeys(render.pair_key for render in oldest)
        if warm := [replica for pair in wanted for replica in self._replicas.warm(pair)]:
            return self._replicas.random.choice(warm)
        return (self._replicas.empty if len(self._replicas.empty) else free).any(self._replicas.random)


class Fifo(Policy):
    """The oldest render, on any free replica."""

    def __init__(self, replicas: Replicas) -> None:
        self._replicas = replicas
        self._queue: deque[Waiting] = deque()

    def add(self, render: Waiting) -> None:
        self._queue.append(render)

    def place(self, now: float) -> Placement:
        render = self._queue.popleft()
        return Placement(self._replica(render.pair_key), render)

    def ended(self, render: Waiting, actual_s: float) -> None:
        pass

    def _replica(self, pair: str) -> int:
        return self._replicas.free.any(self._replicas.random)


class Multiplex(Fifo):
    """Stock multiplexing: the oldest render, on a free replica that has its pair if there is one."""

    def _replica(self, pair: str) -> int:
        warm = self._replicas.warm(pair)
        return self._replicas.random.choice(warm) if warm else super()._replica(pair)


class ConsistentHashing(Fifo):
    """The oldest render, on its pair's own replica or the next on the ring that is free."""

    def __init__(self, replicas: Replicas) -> None:
        super().__init__(replicas)
        ring = sorted(
            (_hash(f"{number}/{point}"), number) for number in range(replicas.count) for point in range(_POINTS)
        )
        self._points = [point for point, _ in ring]
        self._owners = [number for _, number in ring]

    def _replica(self, pair: str) -> int:
        start = bisect(self._points, _hash(pair))
        ring = len(self._owners)
        walk = (self._owners[(start + step) % ring] for step in range(ring))
        return next(replica for replica in walk if replica in self._replicas.free)


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
