"""The scheduling policy: which waiting render a replica starts, and which of several free replicas comes first.

Pure functions over values, shared with the fleet simulation of the benchmarks. Fairness and order come first, and no
warm pair overrules them: `pick` chooses only among what `fronts` lets each tenant start next.

Example:
    render = pick(waiting, Replica("r1", resident=("pair a",)), fleet, now=time(), rules=Rules(120, 900))
"""

from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import dataclass

from deployments.scheduling.overtaking import NOTHING_STARTED, Passing
from serve_app.jobs.records import Line, Waiting

# Candidates are read up to these bounds, so that a decision costs the same however long the queue is.
WINDOW = 32  # oldest renders of each line, whatever their pairs
MOST_TENANTS = 4  # the most owed ones
MOST_PAIRS = 64  # the most recent of what a replica has ready, whose renders count however far back they stand


@dataclass(frozen=True)
class Rules:
    """What the operator decided. Seconds."""

    patience_s: float  # after so long a render that younger ones of its line passed goes first; 0: none is passed
    age_bound_s: float  # after so long in the queue a render goes before higher priorities of its tenant


@dataclass(frozen=True)
class Replica:
    """The replica that was won."""

    replica_id: str
    resident: tuple[str, ...]  # pair keys ready in its memory, the loaded one first


@dataclass(frozen=True)
class Fleet:
    """What is known of everything else at that moment."""

    elsewhere: Container[str]  # pair keys ready on other replicas
    turns: Mapping[str, float]  # of each tenant with a candidate, from `FairShare.turns`: smaller is owed more
    overtaken: Mapping[Line, Passing]  # from `Overtaking.before`; of a line that is not in it, nothing has started
    slack: float  # from `FairShare.slack`: a warm pair may be preferred for turns that are at most so much later


def pick(waiting: Sequence[Waiting], replica: Replica, fleet: Fleet, now: float, rules: Rules) -> Waiting:
    """Return the render that the replica starts.

    First what the most owed tenant has overdue. Then what needs a pair that the replica has ready, and before others
    one that only this replica has, because the others will soon meet another replica that suits them. Then, for the
    same reason, what the most owed tenant has for a pair that is ready nowhere; then its oldest.

    Args:
        waiting: candidates in order of arrival, not empty. Of a few most owed tenants, the `WINDOW` oldest renders of
            each line, and of each line the oldest for each of the `MOST_PAIRS` most recent resident pairs.
        replica: what was won.
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
    """Return how well a free replica suits what waits: 0 has a wanted pair, 1 has nothing to lose, 2 is any other."""
    if not resident:
        return 1
    return 0 if any(pair in wanted for pair in resident) else 2


def fronts(waiting: Sequence[Waiting], fleet: Fleet, now: float, rules: Rules) -> list[list[Waiting]]:
    """Return what may be started now: a list in order of arrival for each tenant in the slack, the most owed first."""
    by_tenant: dict[str, list[Waiting]] = {}
    for render in waiting:
        by_tenant.setdefault(render.tenant, []).append(render)
    # Sorting is stable: of tenants that are owed the same, the one with the oldest render comes first.
    tenants = sorted(by_tenant, key=lambda tenant: fleet.turns[tenant])
    last_turn = fleet.turns[tenants[0]] + fleet.slack
    return [
        _reachable(_first_line(by_tenant[tenant], now, rules), fleet, rules)
        for tenant in tenants
        if fleet.turns[tenant] <= last_turn
    ]


def overdue(render: Waiting, fleet: Fleet) -> bool:
    """Return whether younger renders of its line have passed it for the whole patience."""
    return render.render_id < fleet.overtaken.get(render.line, NOTHING_STARTED).overdue_before


def _first_line(renders: list[Waiting], now: float, rules: Rules) -> list[Waiting]:
    """Return one tenant's line of the oldest render beyond the age bound, or else the one of the highest priority."""
    aged = [render for render in renders if now - render.created_at >= rules.age_bound_s]
    if aged:
        return [render for render in aged if render.priority is aged[0].priority]
    highest = max(render.priority.rank for render in renders)
    return [render for render in renders if render.priority.rank == highest]


def _reachable(line: list[Waiting], fleet: Fleet, rules: Rules) -> list[Waiting]:
    """Return the oldest render of a line, and those behind it that may pass it."""
    if rules.patience_s == 0 or overdue(line[0], fleet):
        return line[:1]
    reach = fleet.overtaken.get(line[0].line, NOTHING_STARTED).reach
    if reach < WINDOW or len(line) < WINDOW:
        return line[: reach + 1]
    # Candidates behind the window have gaps between them, so their places are estimated from their ids: a line's
    # renders come among those of all others, and what lies in the window shows how densely.
    ids_per_place = (line[WINDOW - 1].render_id - line[0].render_id) / (WINDOW - 1)
    last_id = line[0].render_id + reach * ids_per_place
    return [render for render in line if render.render_id <= last_id]
