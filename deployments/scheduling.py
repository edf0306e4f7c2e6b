"""Which waiting render a free replica gets: a pure function, decided only once the replica is won."""

from collections.abc import Sequence

from serve_app.jobs.records import Waiting

PATIENCE_S = 60.0


def pick(waiting: Sequence[Waiting], *, loaded: str | None, now: float, patience_s: float = PATIENCE_S) -> Waiting:
    """The render for a replica that holds the pair `loaded`, out of `waiting` in order of arrival (not empty).

    The oldest render that needs no new pair comes first, but for a render that has waited `patience_s`: affinity
    may jump the line only for so long.
    """
    oldest = waiting[0]
    if now - oldest.created_at >= patience_s:
        return oldest
    return next((render for render in waiting if render.pair_key == loaded), oldest)
