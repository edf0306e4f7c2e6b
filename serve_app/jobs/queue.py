"""The scheduling side of the job store: load, candidates and positions, at a cost that does not grow with the queue.

    load = await store.queue.load()
    waiting = await store.queue.candidates(list(load.lines), pairs=("pair a",), window=32)

Sums come from the table `queue_totals`, candidates from partial indexes over queued renders; see docs/queue.md.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from time import time
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    CompoundSelect,
    Connection,
    Integer,
    Select,
    String,
    Subquery,
    and_,
    bindparam,
    func,
    literal,
    literal_column,
    select,
    tuple_,
    union_all,
)

from serve_app.jobs.database import Database
from serve_app.jobs.load import Amount, Load
from serve_app.jobs.ownership import Wanted
from serve_app.jobs.records import Line, RenderRecord, RequestRecord, Waiting
from serve_app.jobs.rows import read_requests
from serve_app.jobs.states import RenderState
from serve_app.jobs.tables import BUCKET, WHOLE_LINE, leaders, queue_totals, renders
from serve_app.spec import Priority

_WAITING = (  # as the fields of Waiting
    renders.c.id,
    renders.c.tenant,
    renders.c.priority,
    renders.c.pair_key,
    renders.c.created_at,
    renders.c.cost_s,
)
# Literals, not parameters: a generic plan is made without the values of parameters. PostgreSQL uses a partial index
# only if the statement itself implies its condition, and prefers an ordered index scan only if it knows a small LIMIT.
_QUEUED = renders.c.state == literal_column(f"'{RenderState.QUEUED}'")
_ONE = literal_column("1", Integer())


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a render in the queue."""

    load: Load  # of the whole queue
    ahead: Amount  # queued before it in its own line


@dataclass(frozen=True, slots=True)
class Standing:
    """A request, and the place of its first queued render (None if none is queued)."""

    record: RequestRecord
    place: Place | None = None


class Queue:
    """Reads of the queued renders in one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self) -> Load:
        """Return the sums of queued and running renders."""
        return await self._database.read(read_load)

    async def candidates(self, lines: Sequence[Line], pairs: Sequence[str], window: int) -> list[Waiting]:
        """Return the oldest `window` renders of each line and the oldest of each pair in each line, by arrival.

        At most 500 lines and 500 pairs: each is one SELECT in a UNION, and SQLite takes no more.
        """
        if not lines:
            return []
        statement, values = _candidates(len(lines), len(pairs), window), _values(lines, pairs)
        found = await self._database.read(
            lambda connection: connection.execute(statement, values).all(), generic_plan=True
        )
        return [_to_waiting(row) for _, row in sorted({row[0]: row for row in found}.items())]

    async def oldest_wait_s(self) -> float | None:
        """Return the seconds that the oldest queued render has waited; None if none is queued.

        Reads the whole index: call it rarely.
        """
        oldest = await self._database.read(lambda connection: connection.execute(_OLDEST).scalar_one())
        return None if oldest is None else time() - oldest


def read_load(connection: Connection) -> Load:
    """Return the load, with one statement."""
    found = connection.execute(_LOAD).all()
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


def read_standings(connection: Connection, wanted: Collection[Wanted]) -> dict[Wanted, Standing]:
    """Return the standing of each wanted request that exists; the number of statements does not depend on how many."""
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
    """Return, by render id, what is queued before each of the renders in its own line."""
    ahead = dict.fromkeys(render_ids, Amount())
    for row in connection.execute(_before(render_ids)).all():
        ahead[row.id] += Amount(int(row.renders), float(row.cost_s))
    return ahead


def _first_queued(record: RequestRecord) -> RenderRecord | None:
    return next((render for render in record.renders if render.state is RenderState.QUEUED), None)


def _before(render_ids: Collection[int]) -> CompoundSelect[Any]:
    """Return a SELECT of the totals of all buckets before a render's own, and of what is before it in its own one."""
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


def _load() -> Select[Any]:
    """Return a SELECT of one row for each line (one row without a line if none), each with the sums of what runs."""
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
_OLDEST = select(func.min(renders.c.created_at)).where(_QUEUED)


@lru_cache(maxsize=256)
def _candidates(lines: int, pairs: int, window: int) -> CompoundSelect[Any]:
    """Return the statement for so many lines and pairs; `_values` gives its parameters.

    Cached, because building the statement takes longer than running it.
    """
    heads = [select(_head(number, window)) for number in range(lines)]
    return union_all(*heads, _oldest_of_pairs(lines, pairs)) if pairs else union_all(*heads)


def _values(lines: Sequence[Line], pairs: Sequence[str]) -> dict[str, str | int]:
    values: dict[str, str | int] = {f"pair_{number}": pair for number, pair in enumerate(pairs)}
    for number, line in enumerate(lines):
        values[f"tenant_{number}"], values[f"priority_{number}"] = line.tenant, line.priority.rank
    return values


def _line(number: int) -> tuple[BindParameter[str], BindParameter[int]]:
    return bindparam(f"tenant_{number}", type_=String()), bindparam(f"priority_{number}", type_=Integer())


def _head(number: int, window: int) -> Subquery:
    # A subquery: SQLite allows no LIMIT directly in a part of a UNION.
    columns = (renders.c.tenant, renders.c.priority)
    length = literal_column(str(window), Integer())
    return _queued_first(select(*_WAITING), columns, _line(number)).limit(length).subquery()


def _queued_first(
    query: Select[Any], columns: Sequence[ColumnElement[Any]], wanted: Sequence[ColumnElement[Any]]
) -> Select[Any]:
    """Restrict the query to queued renders with the wanted values of `columns` (the first of an index), by arrival.

    Uses `>=` and `<=` instead of `=`, and orders by all columns of the index. With `=` PostgreSQL knows that the
    columns are constant, and prefers a scan of the primary key that filters out most rows.
    """
    matching = and_(tuple_(*columns) >= tuple_(*wanted), tuple_(*columns) <= tuple_(*wanted))
    return query.where(_QUEUED, matching).order_by(*columns, renders.c.id)


def _oldest_of_pairs(lines: int, pairs: int) -> Select[Any]:
    """Return a SELECT of the oldest render of each pair in each line: one index seek for each."""
    # UNION ALL instead of VALUES, because SQLAlchemy cannot cache the compiled form of VALUES.
    tenants = (_line(number) for number in range(lines))
    wanted_lines = union_all(
        *(select(tenant.label("tenant"), priority.label("priority")) for tenant, priority in tenants)
    ).cte("wanted_lines")
    names = (bindparam(f"pair_{number}", type_=String()) for number in range(pairs))
    wanted_pairs = union_all(*(select(name.label("pair_key")) for name in names)).cte("wanted_pairs")
    columns = (renders.c.pair_key, renders.c.tenant, renders.c.priority)
    wanted = (wanted_pairs.c.pair_key, wanted_lines.c.tenant, wanted_lines.c.priority)
    first = _queued_first(select(renders.c.id), columns, wanted).limit(_ONE)
    oldest = first.correlate(wanted_pairs, wanted_lines).scalar_subquery()
    ids = select(oldest).select_from(wanted_pairs.join(wanted_lines, literal(True)))
    return select(*_WAITING).where(renders.c.id.in_(ids), _QUEUED)


def _to_waiting(row: Sequence[Any]) -> Waiting:
    render_id, tenant, rank, pair_key, created_at, cost_s = row
    return Waiting(render_id, tenant, Priority.of_rank(rank), pair_key, created_at, cost_s)
