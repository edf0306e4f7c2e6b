"""The scheduling policy: which waiting render a replica starts, and which of several free replicas comes first.

Pure functions over values, shared with the fleet simulation of the benchmarks. Fairness and order have priority over
warm pairs: `pick` chooses only among the renders that `fronts` allows each tenant to start next.

Example:
    render = pick(waiting, Replica("r1", resident=("pair a",)), fleet, now=time(), rules=Rules(120, 900))
"""

from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import dataclass

from deployments.scheduling.overtaking import NOTHING_STARTED, Passing
from serve_app.jobs.records import Line, Waiting

# Bounds on the candidates, so that the cost of a decision does not depend on the length of the queue.
WINDOW = 32  # oldest renders of each line, with any pair
MOST_TENANTS = 4  # the most owed ones
MOST_PAIRS = 64  # the most recent pairs of a replica; their oldest renders are candidates at any place in the queue


@dataclass(frozen=True)
class Rules:
    """What the operator decided. Seconds."""

    patience_s: float  # a render that was overtaken within its line this long ago goes first; 0: no overtaking
    age_bound_s: float  # after this time in the queue a render goes before higher priorities of its tenant


@dataclass(frozen=True)
class Replica:
    """The reserved replica."""

    replica_id: str
    resident: tuple[str, ...]  # pair keys ready in its memory, the loaded one first


@dataclass(frozen=True)
class Fleet:
    """Everything else that a decision depends on."""

    elsewhere: Container[str]  # pair keys ready on other replicas
    turns: Mapping[str, float]  # of each tenant with a candidate, from `FairShare.turns`: smaller is owed more
    overtaken: Mapping[Line, Passing]  # from `Overtaking.before`; of a line that is not in it, nothing has started
    slack: float  # from `FairShare.slack`: a warm pair may be preferred if its tenant's turn is at most this much later


def pick(waiting: Sequence[Waiting], replica: Replica, fleet: Fleet, now: float, rules: Rules) -> Waiting:
    """Return the render that the replica starts.

    The order is:

    1. the overdue render of the most owed tenant;
    2. a render whose pair only this replica has ready, then one whose pair other replicas have ready, too: such a
       render will soon get one of those;
    3. of the most owed tenant, a render whose pair is ready nowhere, for the same reason; then its oldest.

    Args:
        waiting: candidates in order of arrival, not empty. Of a few most owed tenants, the `WINDOW` oldest renders of
            each line, and of each line the oldest for each of the `MOST_PAIRS` most recent resident pairs.
        replica: the reserved replica.
        fleet: everything else.
        now: seconds since the epoch.
        rules: the operator's.
    """
    owed, *others = fronts(waiting, fleet, now, rules)
    oldest = owed[0]
    if overdue(oldest, fleet):
        return oldest
    resident = frozenset(replica.resident)
    warm = [render for front in (owed, *others) for render in front if render.pair_key in resident]
    suitable = warm or owed
    return next((render for render in suitable if render.pair_key not in fleet.elsewhere), suitable[0])


def rank(resident: Collection[str], wanted: Container[str]) -> int:
    """Return how well a free replica suits the queue: 0 has a wanted pair, 1 has no pair at all, 2 any other."""
    if not resident:
        return 1
    return 0 if any(pair in wanted for pair in resident) else 2


def fronts(waiting: Sequence[Waiting], fleet: Fleet, now: float, rules: Rules) -> list[list[Waiting]]:
    """Return what may start now: a list in order of arrival for each tenant within the slack, the most owed first."""
    by_tenant: dict[str, list[Waiting]] = {}
    for render in waiting:
        by_tenant.setdefault(render.tenant, []).append(render)
    # Sorting is stable: of tenants with the same turn, the one with the oldest render comes first.
    tenants = sorted(by_tenant, key=lambda tenant: fleet.turns[tenant])
    last_turn = fleet.turns[tenants[0]] + fleet.slack
    return [
        _reachable(_first_line(by_tenant[tenant], now, rules), fleet, rules)
        for tenant in tenants
        if fleet.turns[tenant] <= last_turn
    ]


def overdue(render: Waiting, fleet: Fleet) -> bool:
    """Return whether a younger render of its line overtook it more than the patience ago."""
    return render.render_id < fleet.overtaken.get(render.line, NOTHING_STARTED).overdue_before


def _first_line(renders: list[Waiting], now: float, rules: Rules) -> list[Waiting]:
    """Return the line of a tenant's oldest render if it is beyond the age bound, else its line of highest priority."""
    aged = [render for render in renders if now - render.created_at >= rules.age_bound_s]
    if aged:
        return [render for render in aged if render.priority is aged[0].priority]
    highest = max(render.priority.rank for render in renders)
    return [render for render in renders if render.priority.rank == highest]


def _reachable(line: list[Waiting], fleet: Fleet, rules: Rules) -> list[Waiting]:
    """Return the oldest render of a line, and those after it that may overtake it."""
    if rules.patience_s == 0 or overdue(line[0], fleet):
        return line[:1]
    reach = fleet.overtaken.get(line[0].line, NOTHING_STARTED).reach
    if reach < WINDOW or len(line) < WINDOW:
        return line[: reach + 1]
    # Candidates after the window are not contiguous, so their places are estimated from their ids. The window shows how
    # dense the line's ids are among those of all lines.
    ids_per_place = (line[WINDOW - 1].render_id - line[0].render_id) / (WINDOW - 1)
    last_id = line[0].render_id + reach * ids_per_place
    return [render for render in line if render.render_id <= last_id]
