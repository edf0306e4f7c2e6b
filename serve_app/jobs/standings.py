"""Queue positions: what is queued before the first queued render of a request, for many requests at once.

Example:
    standings = read_standings(connection, [(request_id, "team-a")])
    standing = standings[request_id, "team-a"]
    standing.place.ahead.renders  # before it in its own line; `jobs.load.ahead_of` adds those of other lines
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import CompoundSelect, Connection, and_, func, select, union_all

from serve_app.jobs.load import Amount, Load
from serve_app.jobs.ownership import Wanted
from serve_app.jobs.queue import read_loads
from serve_app.jobs.records import RenderRecord, RequestRecord
from serve_app.jobs.rows import read_requests
from serve_app.jobs.states import RenderState
from serve_app.jobs.tables import BUCKET, WHOLE_LINE, queue_totals, renders


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a render in the queue."""

    load: Load  # of its model's queue
    ahead: Amount  # queued before it in its own line


@dataclass(frozen=True, slots=True)
class Standing:
    """A request, and the place in the queue of its first queued render (None if none is queued)."""

    record: RequestRecord
    place: Place | None = None


def read_standings(connection: Connection, wanted: Collection[Wanted]) -> dict[Wanted, Standing]:
    """Return the standing of each wanted request that exists; the number of statements does not depend on how many."""
    records = read_requests(connection, wanted)
    places = read_places(connection, records.values())
    return {key: Standing(record, places.get(record.id)) for key, record in records.items()}


def read_places(connection: Connection, records: Collection[RequestRecord]) -> dict[str, Place]:
    """Return, by request id, the place of the first queued render of each request that has one."""
    queued = {record.id: (record.model, render.id) for record in records if (render := _first_queued(record))}
    if not queued:
        return {}
    loads = read_loads(connection, {model for model, _ in queued.values()})
    ahead = read_ahead(connection, [render_id for _, render_id in queued.values()])
    return {request_id: Place(loads[model], ahead[render_id]) for request_id, (model, render_id) in queued.items()}


def read_ahead(connection: Connection, render_ids: Collection[int]) -> Mapping[int, Amount]:
    """Return, by render id, what is queued before each of the renders in its own line."""
    ahead = dict.fromkeys(render_ids, Amount())
    for row in connection.execute(_before(render_ids)).all():
        ahead[row.id] += Amount(int(row.renders), float(row.cost_s))
    return ahead


def _first_queued(record: RequestRecord) -> RenderRecord | None:
    return next((render for render in record.renders if render.state is RenderState.QUEUED), None)


def _before(render_ids: Collection[int]) -> CompoundSelect[Any]:
    """Return a SELECT of the totals of the buckets before a render, and of the renders before it in its own bucket."""
    own = renders.alias("own")
    bucket = own.c.id // BUCKET
    totals = and_(
        queue_totals.c.model == own.c.model,
        queue_totals.c.tenant == own.c.tenant,
        queue_totals.c.priority == own.c.priority,
        queue_totals.c.bucket > WHOLE_LINE,
        queue_totals.c.bucket < bucket,
    )
    neighbours = and_(
        renders.c.state == RenderState.QUEUED,
        renders.c.model == own.c.model,
        renders.c.tenant == own.c.tenant,
        renders.c.priority == own.c.priority,
        renders.c.id >= bucket * BUCKET,
        renders.c.id < own.c.id,
    )
    asked = own.c.id.in_(render_ids)
    return union_all(
        select(
            own.c.id, func.sum(queue_totals.c.queued).label("renders"), func.sum(queue_totals.c.cost_s).label("cost_s")
        )
        .join(queue_totals, totals)
        .where(asked)
        .group_by(own.c.id),
        select(own.c.id, func.count(renders.c.id), func.sum(renders.c.cost_s))
        .join(renders, neighbours)
        .where(asked)
        .group_by(own.c.id),
    )
