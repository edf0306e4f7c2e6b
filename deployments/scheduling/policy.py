"""Which waiting render a replica gets once it is won, and which of several free replicas comes first."""

from collections.abc import Collection, Container, Sequence

from deployments.scheduling.fronts import fronts, overdue
from deployments.scheduling.situation import Fleet, Replica, Rules
from serve_app.jobs.records import Waiting

MOST_TENANTS = 4  # the most owed ones, whose renders are candidates
MOST_PAIRS = 64  # the most recent of what a replica has ready, whose renders are candidates however far back they stand


def pick(waiting: Sequence[Waiting], replica: Replica, fleet: Fleet, now: float, rules: Rules) -> Waiting:
    """The render that the replica starts.

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
    """How well a free replica suits what waits: 0 has a wanted pair ready, 1 has nothing to lose, 2 is any other."""
    if not resident:
        return 1
    return 0 if any(pair in wanted for pair in resident) else 2
