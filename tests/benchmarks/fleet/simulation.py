"""The event loop of the simulated fleet."""
import heapq
from dataclasses import dataclass
from tests.benchmarks.fleet.replicas import Replicas

COLD_S = 8.0

@dataclass(frozen=True, slots=True)
class Start:
    render: object
    at: float
    seconds: float
    cold: bool

def simulate(work, replicas, policy):
    seconds = {w.render.render_id: w.seconds for w in work}
    starts = []
    ends = []
    arrivals = iter(work)
    nxt = next(arrivals, None)
    n = 0
    while nxt or ends:
        if nxt and (not ends or nxt.render.created_at <= ends[0][0]):
            now = nxt.render.created_at
            policy.add(nxt.render); n += 1
            nxt = next(arrivals, None)
        else:
            now, _, replica, render, actual = heapq.heappop(ends)
            replicas.free.add(replica)
            policy.ended(render, actual)
        while replicas.free and n:
            replica, render = policy.place(now)
            n -= 1
            warm = replicas.take(replica, render.pair_key)
            actual = seconds[render.render_id] + (0 if warm else COLD_S)
            heapq.heappush(ends, (now + actual, render.render_id, replica, render, actual))
            starts.append(Start(render, now, seconds[render.render_id], not warm))
    return starts, now
