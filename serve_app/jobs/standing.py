"""Where requests stand: their renders, and what waits and runs before them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import CompoundSelect, Connection, and_, func, select, union_all

from serve_app.jobs.load import Amount, Load
from serve_app.jobs.queue import read_load
from serve_app.jobs.records import RenderRecord, RequestRecord
from serve_app.jobs.rows import Wanted, read_requests
from serve_app.jobs.states import RenderState
from serve_app.jobs.tables import BUCKET, WHOLE_LINE, queue_totals, renders


@dataclass(frozen=True, slots=True)
class Place:
    """In the queue."""

    load: Load  # everything that waits and runs
    ahead: Amount  # what waits in the same line before it


@dataclass(frozen=True, slots=True)
class Standing:
    """A request, and the place of its first queued render; None where none is queued."""

    record: RequestRecord
    place: Place | None = None


def read_standings(connection: Connection, wanted: Collection[Wanted]) -> dict[Wanted, Standing]:
    """Read where those of the wanted requests stand that there are; as many statements for many as for one."""
    records = read_requests(connection, wanted)
    queued = {key: render.id for key, record in records.items() if (render := _first_queued(record))}
    if not queued:
        return {key: Standing(record) for key, record in records.items()}
    load = read_load(connection)
    ahead = read_ahead(connection, queued.values())
    return {
        key: Standing(record, Place(load, ahead[queued[key]]) if key in queued else None)
        for key, record in records.items()
    }


def read_ahead(connection: Connection, render_ids: Collection[int]) -> Mapping[int, Amount]:
    """What waits before each of the renders in its own line, by id."""
    ahead = dict.fromkeys(render_ids, Amount())
    for row in connection.execute(_before(render_ids)).all():
        ahead[row.id] += Amount(int(row.renders), float(row.cost_s))
    return ahead


def _first_queued(record: RequestRecord) -> RenderRecord | None:
    return next((render for render in record.renders if render.state is RenderState.QUEUED), None)


def _before(render_ids: Collection[int]) -> CompoundSelect[Any]:
    """Whole buckets before a render's own, and in that one what is before it."""
    own = renders.alias("own")
    bucket = own.c.id // BUCKET
    totals = and_(
        queue_totals.c.tenant == own.c.tenant,
        queue_totals.c.priority == own.c.priority,
        queue_totals.c.bucket > WHOLE_LINE,
        queue_totals.c.bucket < bucket,
    )
    neighbours = and_(
        renders.c.state == RenderState.QUEUED,
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
