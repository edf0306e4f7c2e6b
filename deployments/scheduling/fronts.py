"""What each tenant may start next: the rules of fairness and order, which no warm pair overrules."""

from collections.abc import Sequence

from deployments.scheduling.overtaking import NOTHING_STARTED
from deployments.scheduling.situation import Fleet, Rules
from serve_app.jobs.records import Waiting

WINDOW = 32  # oldest renders of each line that are candidates, whatever their pairs


def fronts(waiting: Sequence[Waiting], fleet: Fleet, now: float, rules: Rules) -> list[list[Waiting]]:
    """What may be started now, one list in order of arrival for each tenant within the slack, the most owed first."""
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
    """Whether younger renders of its line have passed it for the whole patience."""
    return render.render_id < fleet.overtaken.get(render.line, NOTHING_STARTED).overdue_before


def _first_line(renders: list[Waiting], now: float, rules: Rules) -> list[Waiting]:
    """Of one tenant's, the line of the oldest render beyond the age bound, or else the one of the highest priority."""
    aged = [render for render in renders if now - render.created_at >= rules.age_bound_s]
    if aged:
        return [render for render in aged if render.priority is aged[0].priority]
    highest = max(render.priority.rank for render in renders)
    return [render for render in renders if render.priority.rank == highest]


def _reachable(line: list[Waiting], fleet: Fleet, rules: Rules) -> list[Waiting]:
    """The oldest render of a line, and those behind it that may pass it."""
    if rules.patience_s == 0 or overdue(line[0], fleet):
        return line[:1]
    reach = fleet.overtaken.get(line[0].line, NOTHING_STARTED).reach
    if reach < WINDOW or len(line) < WINDOW:
        return line[: reach + 1]
    # Behind the window candidates have gaps between them, so that only ids tell places: a line's renders come among
    # those of all others, and what lies in the window shows how densely.
    ids_per_place = (line[WINDOW - 1].render_id - line[0].render_id) / (WINDOW - 1)
    last_id = line[0].render_id + reach * ids_per_place
    return [render for render in line if render.render_id <= last_id]
