"""The scheduling policies that are compared."""

import hashlib
from bisect import bisect
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from deployments.scheduling import MOST_TENANTS, WINDOW, FairShare, Fleet, Overtaking, Replica, Rules, pick, rank
from serve_app.jobs.records import Waiting
from tests.benchmarks.fleet.lines import Lines
from tests.benchmarks.fleet.replicas import Replicas

class Placement(NamedTuple):
    replica: int
    render: Waiting


class Ours:
    """The service's own policy."""

    def __init__(self, replicas: Replicas, rules=Rules(), reach=False) -> None:
        self.reach = reach
        self._replicas = replicas
        self._rules = rules
        self._lines = Lines()
        self._fair_share = FairShare({})
        self._overtaking = Overtaking(self._rules.patience_s)

    def __len__(self):
        return len(self._lines)

    def add(self, render):
        self._lines.add(render)

    def place(self, now):
        replica = self._best_free()
        resident = self._replicas.resident(replica)
        turns = self._fair_share.turns(self._lines.tenants)
        owed = dict(sorted(turns.items(), key=lambda turn: turn[1])[:MOST_TENANTS])
        waiting = self._lines.candidates(owed, resident, WINDOW)
        fleet = Fleet(
            elsewhere=self._replicas.elsewhere(replica),
            turns=owed,
            overtaken=self._overtaking.before(now),
            slack=self._fair_share.slack(self._replicas.count, owed, self._rules.patience_s),
            reach=self._overtaking.reach(now) if self.reach else None,
        )
        render = pick(waiting, Replica(str(replica), resident), fleet, now, self._rules)
        self._lines.remove(render)
        self._fair_share.charge(render.tenant, render.cost_s)
        self._overtaking.started(render, now)
        return Placement(replica, render)

    def ended(self, render, actual_s):
        self._fair_share.settle(render.tenant, render.cost_s, actual_s)

    def _best_free(self):
        free = self._replicas.free
        if len(free) == 1:
            return next(iter(free))
        wanted = {r.pair_key for r in self._lines.candidates(self._lines.tenants, (), WINDOW)}
        best = [x for p in wanted for x in self._replicas.warm(p)]
        if best:
            return self._replicas.random.choice(best)
        empty = [r for r in free if not self._replicas._resident[r]]
        if empty:
            return empty[0]
        return free.any(self._replicas.random)


class Fifo:
    def __init__(self, replicas):
        self._replicas = replicas
        self._queue = deque()
    def __len__(self):
        return len(self._queue)
    def add(self, r):
        self._queue.append(r)
    def place(self, now):
        render = self._queue.popleft()
        return Placement(self._choose(render.pair_key), render)
    def _choose(self, pair):
        return self._replicas.free.any(self._replicas.random)
    def ended(self, render, actual_s):
        pass


class Multiplex(Fifo):
    def _choose(self, pair):
        warm = self._replicas.warm(pair)
        return self._replicas.random.choice(warm) if warm else super()._choose(pair)

class ConsistentHashing(Fifo):
    def __init__(self, replicas):
        super().__init__(replicas)
        self._ring = sorted((self._hash(f"{r}/{k}"), r) for r in range(replicas.count) for k in range(50))
        self._points = [p for p, _ in self._ring]
        self._homes = {}
    def _hash(self, s):
        return int.from_bytes(hashlib.blake2b(s.encode(), digest_size=8).digest())
    def _choose(self, pair):
        at = bisect(self._points, self._hash(pair))
        n = len(self._ring)
        return next(r for k in range(n) if (r := self._ring[(at + k) % n][1]) in self._replicas.free)
