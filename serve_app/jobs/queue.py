"""What waits, read for the scheduling policy, positions and admission: at the same cost however long the queue is."""

from collections.abc import Sequence
from time import time
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    Subquery,
    and_,
    func,
    literal,
    select,
    tuple_,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from serve_app.jobs.database import Database, to_the_end
from serve_app.jobs.load import Amount, Load
from serve_app.jobs.records import Line, Waiting
from serve_app.jobs.spec import Priority
from serve_app.jobs.states import RenderState
from serve_app.jobs.tables import WHOLE_LINE, leaders, queue_totals, renders

_WAITING = (
    renders.c.id,
    renders.c.tenant,
    renders.c.priority,
    renders.c.pair_key,
    renders.c.created_at,
    renders.c.cost_s,
)
_QUEUED = renders.c.state == RenderState.QUEUED


class Queue:
    """The queued renders of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @to_the_end
    async def load(self) -> Load:
        """What waits and what runs, in sums."""
        async with self._database.read() as connection:
            return await read_load(connection)

    @to_the_end
    async def candidates(self, lines: Sequence[Line], pairs: Sequence[str], window: int) -> list[Waiting]:
        """The oldest `window` renders of each line, and for each pair its oldest of each line; in order of arrival."""
        if not lines:
            return []
        heads = union_all(*(select(_head(line, window)) for line in lines))
        async with self._database.read() as connection:
            found = list((await connection.execute(heads)).all())
            if pairs:
                found += (await connection.execute(_oldest_of_pairs(lines, pairs))).all()
        return [_to_waiting(row) for row in sorted({row.id: row for row in found}.values(), key=lambda row: row.id)]

    @to_the_end
    async def oldest_wait_s(self) -> float | None:
        """Seconds that the longest waiting render of any line has waited; None where none waits."""
        async with self._database.read() as connection:
            lines = (await read_load(connection)).lines
            if not lines:
                return None
            oldest = union_all(*(select(_head(line, 1)) for line in lines))
            created = [row.created_at for row in (await connection.execute(oldest)).all()]
        return time() - min(created) if created else None


async def read_load(connection: AsyncConnection) -> Load:
    """The load, as this connection sees it."""
    found = (await connection.execute(_LOAD)).all()
    whole = found[0]
    return Load(
        lines={
            Line(row.tenant, Priority.of_rank(row.priority)): Amount(row.queued, row.cost_s)
            for row in found
            if row.tenant is not None
        },
        running=Amount(int(whole.running), float(whole.running_s or 0.0)),
        replicas=whole.replicas or 0,
    )


def _load() -> Select[Any]:
    """One row for each line, or one without a line, each with what is the same for all."""
    running = (
        select(
            func.count().label("running"),
            func.sum(renders.c.cost_s * (1 - renders.c.steps_done * 1.0 / renders.c.steps)).label("running_s"),
            select(func.sum(leaders.c.replicas)).scalar_subquery().label("replicas"),
        )
        .where(renders.c.state == RenderState.PROCESSING)
        .subquery()
    )
    lines = select(queue_totals).where(queue_totals.c.bucket == WHOLE_LINE).subquery()
    return select(running, lines).outerjoin_from(running, lines, literal(True))


_LOAD = _load()


def _head(line: Line, window: int) -> Subquery:
    # A SELECT of its own: a LIMIT may not stand directly in a UNION on SQLite.
    columns = (renders.c.tenant, renders.c.priority)
    wanted = (literal(line.tenant), literal(line.priority.rank))
    return _queued_first(select(*_WAITING), columns, wanted).limit(window).subquery()


def _queued_first(
    query: Select[Any], columns: Sequence[ColumnElement[Any]], wanted: Sequence[ColumnElement[Any]]
) -> Select[Any]:
    """The query over the queued renders whose columns, the first of an index, are as wanted; in order of arrival.

    Two comparisons stand for each equality, and the order names all columns of the index: told that the columns are
    constant, PostgreSQL prefers to walk the primary key, past everything that does not match.
    """
    matching = and_(tuple_(*columns) >= tuple_(*wanted), tuple_(*columns) <= tuple_(*wanted))
    return query.where(_QUEUED, matching).order_by(*columns, renders.c.id)


def _oldest_of_pairs(lines: Sequence[Line], pairs: Sequence[str]) -> Select[Any]:
    """One seek along the index for each pair in each line."""
    # Rows as a union and not as VALUES, which SQLAlchemy would compile anew each time.
    wanted_lines = union_all(
        *(select(literal(line.tenant).label("tenant"), literal(line.priority.rank).label("priority")) for line in lines)
    ).cte("wanted_lines")
    wanted_pairs = union_all(*(select(literal(pair).label("pair_key")) for pair in pairs)).cte("wanted_pairs")
    columns = (renders.c.pair_key, renders.c.tenant, renders.c.priority)
    wanted = (wanted_pairs.c.pair_key, wanted_lines.c.tenant, wanted_lines.c.priority)
    first = _queued_first(select(renders.c.id), columns, wanted).limit(1)
    oldest = first.correlate(wanted_pairs, wanted_lines).scalar_subquery()
    ids = select(oldest).select_from(wanted_pairs.join(wanted_lines, literal(True)))
    return select(*_WAITING).where(renders.c.id.in_(ids), _QUEUED)


def _to_waiting(row: Row[Any]) -> Waiting:
    return Waiting(
        render_id=row.id,
        tenant=row.tenant,
        priority=Priority.of_rank(row.priority),
        pair_key=row.pair_key,
        created_at=row.created_at,
        cost_s=row.cost_s,
    )
