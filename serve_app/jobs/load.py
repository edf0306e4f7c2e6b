"""How much work waits and runs, and how long a render will therefore wait."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from serve_app.jobs.records import Line


@dataclass(frozen=True, slots=True)
class Amount:
    """Some renders, and the seconds of one replica that they are predicted to cost together."""

    renders: int = 0
    cost_s: float = 0.0

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(self.renders + other.renders, self.cost_s + other.cost_s)


@dataclass(frozen=True, slots=True)
class Load:
    """The whole queue in a few numbers."""

    lines: Mapping[Line, Amount] = field(default_factory=dict)  # of what is queued; a line without renders is absent
    running: Amount = Amount()  # `cost_s` is what is still to come of them
    replicas: int = 0  # that the Dispatcher knew of last

    @property
    def queued(self) -> Amount:
        """Everything that waits."""
        return sum(self.lines.values(), Amount())

    def of_tenant(self, tenant: str) -> Amount:
        """What waits of one tenant."""
        return sum((amount for line, amount in self.lines.items() if line.tenant == tenant), Amount())

    @property
    def capacity(self) -> int:
        """Replicas that share the work. What runs has one each, whatever the Dispatcher last knew."""
        return max(1, self.replicas, self.running.renders)

    def plus(self, line: Line, amount: Amount) -> "Load":
        """The load once that much more waits."""
        return replace(self, lines={**self.lines, line: self.lines.get(line, Amount()) + amount})


def ahead_of(load: Load, line: Line, in_line: Amount, weights: Mapping[str, float]) -> Amount:
    """What will be started before a render that has `in_line` before it in its own line.

    Fair sharing as a fluid: of its own tenant, what is before it in its line and all of higher priority; of every other
    tenant, as much as that tenant's share lets through meanwhile.
    """
    own = sum(
        (
            amount
            for other, amount in load.lines.items()
            if other.tenant == line.tenant and other.priority.rank > line.priority.rank
        ),
        in_line,
    )
    others = (
        _share(load.of_tenant(tenant), own.cost_s * weights.get(tenant, 1.0) / weights.get(line.tenant, 1.0))
        for tenant in {other.tenant for other in load.lines} - {line.tenant}
    )
    return sum(others, own)


def wait_s(load: Load, ahead: Amount) -> float:
    """Seconds until the replicas have done what runs and what is ahead."""
    busy_s = load.running.cost_s if ahead.renders or load.running.renders >= load.capacity else 0.0
    return (busy_s + ahead.cost_s) / load.capacity


def _share(waiting: Amount, cost_s: float) -> Amount:
    """The first `cost_s` seconds of what waits."""
    if waiting.cost_s <= cost_s:
        return waiting
    part = cost_s / waiting.cost_s
    return Amount(round(waiting.renders * part), cost_s)
