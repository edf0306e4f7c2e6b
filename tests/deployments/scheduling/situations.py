"""Queues, replicas and fleets for the laws of the scheduling policy."""

from dataclasses import dataclass

from hypothesis import strategies as st

from deployments.scheduling import Fleet, Passing, Replica, Rules, pick
from serve_app.jobs.records import Line, Waiting
from serve_app.spec import Priority

NOW = 10_000.0
TENANTS = "xyz"
PAIRS = "abcdef"
LINES = [Line(tenant, priority) for tenant in TENANTS for priority in Priority]


@dataclass(frozen=True)
class Situation:
    """Everything that a choice depends on."""

    waiting: list[Waiting]
    replica: Replica
    fleet: Fleet
    rules: Rules

    @property
    def choice(self) -> Waiting:
        return pick(self.waiting, self.replica, self.fleet, NOW, self.rules)

    @property
    def owed(self) -> str:
        """Return the tenant that is owed most; the one with the oldest render, of several."""
        return min((render.tenant for render in self.waiting), key=lambda tenant: self.fleet.turns[tenant])

    def of_tenant(self, tenant: str) -> list[Waiting]:
        return [render for render in self.waiting if render.tenant == tenant]

    def older_in_line(self, choice: Waiting) -> list[Waiting]:
        return [r for r in self.waiting if r.line == choice.line and r.render_id < choice.render_id]

    def overdue(self, render: Waiting) -> bool:
        passing = self.fleet.overtaken.get(render.line)
        return passing is not None and render.render_id < passing.overdue_before

    def aged(self, render: Waiting) -> bool:
        return NOW - render.created_at >= self.rules.age_bound_s


def render(
    number: int, *, tenant: str = "x", priority: Priority = Priority.NORMAL, pair: str = "a", created_at: float = NOW
) -> Waiting:
    return Waiting(render_id=number, tenant=tenant, priority=priority, pair_key=pair, created_at=created_at, cost_s=1.0)


@st.composite
def queues(draw: st.DrawFn) -> list[Waiting]:
    item = st.tuples(st.sampled_from(LINES), st.sampled_from(PAIRS), st.floats(0, NOW))
    items = sorted(draw(st.lists(item, min_size=1, max_size=24)), key=lambda item: item[2])
    return [
        render(number, tenant=line.tenant, priority=line.priority, pair=pair, created_at=created_at)
        for number, (line, pair, created_at) in enumerate(items)
    ]


fleets = st.builds(
    Fleet,
    elsewhere=st.frozensets(st.sampled_from(PAIRS)),
    turns=st.fixed_dictionaries({tenant: st.integers(0, 20).map(float) for tenant in TENANTS}),
    overtaken=st.dictionaries(
        st.sampled_from(LINES), st.builds(Passing, overdue_before=st.integers(0, 24), reach=st.integers(2, 24))
    ),
    slack=st.integers(0, 10).map(float),
)
replicas = st.builds(
    Replica,
    replica_id=st.just("r"),
    resident=st.lists(st.sampled_from(PAIRS), unique=True, max_size=3).map(tuple),
)
rules = st.builds(Rules, patience_s=st.sampled_from([0.0, 60.0]), age_bound_s=st.floats(1, 2 * NOW))
situations = st.builds(Situation, waiting=queues(), replica=replicas, fleet=fleets, rules=rules)
