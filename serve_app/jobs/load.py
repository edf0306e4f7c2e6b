"""The load of the queue, and the wait that fair queueing predicts from it (a fluid approximation).

Example:
    load = await store.queue("wan22_14b_t2v").load()
    ahead = ahead_of(load, line, load.lines[line], weights={})
    wait_s(load, ahead)  # seconds
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from serve_app.jobs.records import Line


@dataclass(frozen=True, slots=True)
class Amount:
    """A number of renders, and the seconds of one replica that they are predicted to cost together."""

    renders: int = 0
    cost_s: float = 0.0

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(self.renders + other.renders, self.cost_s + other.cost_s)


@dataclass(frozen=True, slots=True)
class Load:
    """Sums of all queued and running renders."""

    lines: Mapping[Line, Amount] = field(default_factory=dict)  # queued; a line without renders is absent
    running: Amount = Amount()  # `cost_s` counts the steps that are still to be done
    replicas: int = 0  # as last reported by the Dispatcher

    @property
    def queued(self) -> Amount:
        """Return the sum of all lines."""
        return sum(self.lines.values(), Amount())

    def of_tenant(self, tenant: str) -> Amount:
        """Return the sum of one tenant's lines."""
        return sum((amount for line, amount in self.lines.items() if line.tenant == tenant), Amount())

    @property
    def capacity(self) -> int:
        """Return the number of replicas that share the work, at least 1 and one for each running render."""
        return max(1, self.replicas, self.running.renders)

    def plus(self, line: Line, amount: Amount) -> "Load":
        """Return the load with `amount` added to what is queued in `line`."""
        return replace(self, lines={**self.lines, line: self.lines.get(line, Amount()) + amount})


def ahead_of(load: Load, line: Line, in_line: Amount, weights: Mapping[str, float]) -> Amount:
    """Return what will start before a render that has `in_line` before it in its own line.

    Approximates fair queueing as a fluid. Of the same tenant, `in_line` and everything of higher priority goes first.
    Of every other tenant, as many seconds go first as its weight allows in the same time.

    Args:
        load: of the whole queue.
        line: of the render.
        in_line: queued before it in that line.
        weights: of the tenants; 1 for those not named.
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
    """Return the seconds until the replicas have finished what is running and what is `ahead`."""
    busy_s = load.running.cost_s if ahead.renders or load.running.renders >= load.capacity else 0.0
    return (busy_s + ahead.cost_s) / load.capacity


def _share(waiting: Amount, cost_s: float) -> Amount:
    """Return the first `cost_s` seconds of what is queued."""
    if waiting.cost_s <= cost_s:
        return waiting
    part = cost_s / waiting.cost_s
    return Amount(round(waiting.renders * part), cost_s)
