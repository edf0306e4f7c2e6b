"""What waits, read for the scheduling policy, positions and admission: at the same cost however long the queue is."""

from collections.abc import Sequence
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
from serve_app.jobs.records import Line, Waiting
from serve_app.jobs.states import RenderState
from serve_app.jobs.tables import WHOLE_LINE, leaders, queue_totals, renders
from serve_app.spec import Priority

_WAITING = (  # as the fields of Waiting
    renders.c.id,
    renders.c.tenant,
    renders.c.priority,
    renders.c.pair_key,
    renders.c.created_at,
    renders.c.cost_s,
)
# In the text and not beside it: a plan that is made once, for any values, may use an index of queued renders only where
# the statement says that it wants no others, and walks an index only where it knows how soon it may stop.
_QUEUED = renders.c.state == literal_column(f"'{RenderState.QUEUED}'")
_ONE = literal_column("1", Integer())


class Queue:
    """The queued renders of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self) -> Load:
        """What waits and what runs, in sums."""
        return await self._database.read(read_load)

    async def candidates(self, lines: Sequence[Line], pairs: Sequence[str], window: int) -> list[Waiting]:
        """The oldest `window` renders of each line, and for each pair its oldest of each line; in order of arrival.

        One SELECT for each line and pair: SQLite takes no more than 500 of either.
        """
        if not lines:
            return []
        statement, values = _candidates(len(lines), len(pairs), window), _values(lines, pairs)
        found = await self._database.read(
            lambda connection: connection.execute(statement, values).all(), planned_once=True
        )
        return [_to_waiting(row) for _, row in sorted({row[0]: row for row in found}.items())]

    async def oldest_wait_s(self) -> float | None:
        """Seconds that the longest waiting render of any line has waited; None where none waits."""
        oldest = await self._database.read(lambda connection: connection.execute(_OLDEST).scalar_one())
        return None if oldest is None else time() - oldest


def read_load(connection: Connection) -> Load:
    """The load, as this connection sees it."""
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


@lru_cache(maxsize=256)
def _candidates(lines: int, pairs: int, window: int) -> CompoundSelect[Any]:
    """The heads, so long, of so many lines, and the oldest of so many pairs in each; `_values` says which.

    Kept, because building the statement takes longer than running it.
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
    # A SELECT of its own: a LIMIT may not stand directly in a UNION on SQLite.
    columns = (renders.c.tenant, renders.c.priority)
    length = literal_column(str(window), Integer())
    return _queued_first(select(*_WAITING), columns, _line(number)).limit(length).subquery()


def _queued_first(
    query: Select[Any], columns: Sequence[ColumnElement[Any]], wanted: Sequence[ColumnElement[Any]]
) -> Select[Any]:
    """The query over the queued renders whose columns, the first of an index, are as wanted; in order of arrival.

    Two comparisons stand for each equality, and the order names all columns of the index: told that the columns are
    constant, PostgreSQL prefers to walk the primary key, past everything that does not match.
    """
    matching = and_(tuple_(*columns) >= tuple_(*wanted), tuple_(*columns) <= tuple_(*wanted))
    return query.where(_QUEUED, matching).order_by(*columns, renders.c.id)


def _oldest_of_pairs(lines: int, pairs: int) -> Select[Any]:
    """One seek along the index for each pair in each line."""
    # Rows as a union and not as VALUES, which SQLAlchemy would compile anew each time.
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


def _oldest() -> Select[Any]:
    """When the oldest render that waits was accepted: a seek for each line, in one text for any number of them."""
    wanted = (queue_totals.c.tenant, queue_totals.c.priority)
    first = _queued_first(select(renders.c.created_at), (renders.c.tenant, renders.c.priority), wanted).limit(_ONE)
    of_line = first.correlate(queue_totals).scalar_subquery().label("created_at")
    of_lines = select(of_line).where(queue_totals.c.bucket == WHOLE_LINE).subquery()
    return select(func.min(of_lines.c.created_at))


_OLDEST = _oldest()


def _to_waiting(row: Sequence[Any]) -> Waiting:
    render_id, tenant, rank, pair_key, created_at, cost_s = row
    return Waiting(render_id, tenant, Priority.of_rank(rank), pair_key, created_at, cost_s)
