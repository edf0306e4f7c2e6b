"""The laws that only show over time, on a small simulated fleet."""

from collections import Counter
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from deployments.scheduling import Rules, rank
from serve_app.spec import Priority
from tests.benchmarks.fleet.policies import ConsistentHashing, Fifo, Multiplex, Ours, Policy
from tests.benchmarks.fleet.replicas import Replicas
from tests.benchmarks.fleet.simulation import Simulation, Start
from tests.benchmarks.fleet.workload import Work
from tests.deployments.scheduling.situations import PAIRS, TENANTS, render

RULES = Rules(patience_s=60, age_bound_s=300)
LONGEST_S = 100.0

arrivals = st.tuples(
    st.floats(0, 30),
    st.floats(1, LONGEST_S),
    st.sampled_from(TENANTS),
    st.sampled_from(Priority),
    st.sampled_from(PAIRS),
)


@st.composite
def works(draw: st.DrawFn) -> list[Work]:
    work, now = [], 0.0
    for number, (pause, seconds, tenant, priority, pair) in enumerate(
        draw(st.lists(arrivals, min_size=1, max_size=60))
    ):
        now += pause
        waiting = render(number, tenant=tenant, priority=priority, pair=pair, created_at=now)
        work.append(Work(waiting, seconds))
    return work


def ours(replicas: Replicas) -> Policy:
    return Ours(replicas, RULES)


def run(work: list[Work], count: int) -> list[Start]:
    replicas = Replicas(count, seed=1)
    return Simulation(replicas, ours(replicas)).run(work)


@given(works(), st.integers(1, 4), st.sampled_from([ours, Fifo, Multiplex, ConsistentHashing]))
def test_every_render_runs_once_and_no_replica_idles_while_one_waits(
    work: list[Work], count: int, make: Callable[[Replicas], Policy]
) -> None:
    replicas = Replicas(count, seed=1)
    starts = Simulation(replicas, make(replicas)).run(work)
    assert Counter(start.render.render_id for start in starts) == Counter(item.render.render_id for item in work)
    for late in starts:
        # Whenever a render waits, as many are at work as there are replicas.
        busy_s = sum(max(0.0, min(s.end, late.at) - max(s.at, late.render.created_at)) for s in starts)
        assert busy_s >= count * late.wait_s - 1e-6


@given(works(), st.integers(1, 4))
def test_a_replica_runs_one_render_at_a_time(work: list[Work], count: int) -> None:
    ends: dict[int, float] = {}
    for start in run(work, count):
        assert start.at >= ends.get(start.replica, 0.0)
        ends[start.replica] = start.end


@given(st.lists(st.sampled_from(PAIRS), max_size=6), st.lists(st.sampled_from(PAIRS), min_size=1, max_size=4))
def test_the_simulated_router_takes_a_free_replica_of_the_best_rank(history: list[str], wanted: list[str]) -> None:
    replicas = Replicas(4, seed=1)
    for pair in history:
        replica = replicas.free.any(replicas.random)
        replicas.take(replica, pair)
        replicas.free.add(replica)
    policy = Ours(replicas, RULES)
    for number, pair in enumerate(wanted):
        policy.add(render(number, pair=pair))
    ranks = {replica: rank(replicas.resident(replica), set(wanted)) for replica in replicas.free}
    assert ranks[policy.best_free()] == min(ranks.values())


def test_no_render_starves_under_a_stream_of_higher_priority() -> None:
    urgent = [Work(render(n, priority=Priority.HIGH, created_at=float(n)), 2.0) for n in range(2, 1000)]
    first = Work(render(0, priority=Priority.HIGH, created_at=0.0), 2.0)
    low = Work(render(1, priority=Priority.LOW, pair="b", created_at=0.5), 2.0)
    starts = run([first, low, *urgent], count=1)
    waited = next(start.wait_s for start in starts if start.render.priority is Priority.LOW)
    assert RULES.age_bound_s <= waited <= RULES.age_bound_s + 2.0


def test_a_quiet_tenant_does_not_wait_for_the_queue_of_one_that_floods() -> None:
    flood = [Work(render(n, tenant="x", created_at=0.0), 10.0) for n in range(400)]
    quiet = [Work(render(400 + n, tenant="y", pair="b", created_at=100.0 * (n + 1)), 10.0) for n in range(8)]
    starts = run([*flood, *quiet], count=4)
    waits = [start.wait_s for start in starts if start.render.tenant == "y"]
    assert max(waits) <= RULES.patience_s + 20
