"""The scheduling side of the job store: load, candidates and positions, at a cost that does not grow with the queue.

    queue = store.queue("wan22_14b_t2v")  # each model has its own
    load = await queue.load()
    waiting = await queue.candidates(list(load.lines), pairs=("pair a",), window=32)

Sums come from the table `queue_totals`, candidates from partial indexes over queued renders; see docs/queue.md.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
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
    null,
    select,
    tuple_,
    union_all,
)

from serve_app.jobs.coordination import dispatcher_of
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
_OF_RUNNING_RENDER = (  # as the fields of Running
    renders.c.replica,
    renders.c.request_id,
    renders.c.index,
    renders.c.attempt,
    renders.c.steps_done,
    renders.c.steps,
)
# Literals, not parameters: a generic plan is made without the values of parameters. PostgreSQL uses a partial index
# only if the statement itself implies its condition, and prefers an ordered index scan only if it knows a small LIMIT.
_QUEUED = renders.c.state == literal_column(f"'{RenderState.QUEUED}'")
_RUNNING = renders.c.state == literal_column(f"'{RenderState.PROCESSING}'")
_ONE = literal_column("1", Integer())


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a render in the queue."""

    load: Load  # of its model's queue
    ahead: Amount  # queued before it in its own line


@dataclass(frozen=True, slots=True)
class Standing:
    """A request, and the place of its first queued render (None if none is queued)."""

    record: RequestRecord
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class Running:
    """A claimed render, as its last heartbeat left it."""

    replica: str
    request_id: str
    index: int
    attempt: int
    steps_done: int
    steps: int


class Queue:
    """Reads of the queued renders of one model."""

    def __init__(self, database: Database, model: str) -> None:
        self._database = database
        self._model = model

    async def load(self) -> Load:
        """Return the sums of queued and running renders."""
        loads = await self._database.read(partial(read_loads, models=[self._model]))
        return loads[self._model]

    async def running(self) -> list[Running]:
        """Return every claimed render, in the order of arrival."""
        query = select(*_OF_RUNNING_RENDER).where(_RUNNING, renders.c.model == self._model).order_by(renders.c.id)
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return [Running(*row) for row in rows]

    async def candidates(self, lines: Sequence[Line], pairs: Sequence[str], window: int) -> list[Waiting]:
        """Return the oldest `window` renders of each line and the oldest of each pair in each line, by arrival.

        At most 500 lines and 500 pairs: each is one SELECT in a UNION, and SQLite takes no more.
        """
        if not lines:
            return []
        statement, values = _candidates(len(lines), len(pairs), window), _values(self._model, lines, pairs)
        found = await self._database.read(
            lambda connection: connection.execute(statement, values).all(), generic_plan=True
        )
        return [_to_waiting(row) for _, row in sorted({row[0]: row for row in found}.items())]

    async def oldest_wait_s(self) -> float | None:
        """Return the seconds that the oldest queued render has waited; None if none is queued.

        Reads the whole index: call it rarely.
        """
        oldest = await self._database.read(
            lambda connection: connection.execute(_OLDEST, {"model": self._model}).scalar_one()
        )
        return None if oldest is None else time() - oldest


def read_loads(connection: Connection, models: Collection[str]) -> dict[str, Load]:
    """Return the load of each of these models, with one statement."""
    roles = {dispatcher_of(model): model for model in models}
    found = connection.execute(_LOADS, {"models": list(models), "roles": list(roles)}).all()
    lines: dict[str, dict[Line, Amount]] = {model: {} for model in models}
    running, replicas = dict.fromkeys(models, Amount()), dict.fromkeys(models, 0)
    for kind, name, tenant, rank, count, cost_s in found:
        if kind == _OF_LINE:
            lines[name][Line(tenant, Priority.of_rank(rank))] = Amount(count, cost_s)
        elif kind == _OF_RUNNING:
            running[name] = Amount(count, cost_s)
        else:
            replicas[roles[name]] = count
    return {model: Load(lines[model], running[model], replicas[model]) for model in models}


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
    """Return a SELECT of the totals of all buckets before a render's own, and of what is before it in its own one."""
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


_OF_LINE, _OF_RUNNING, _OF_REPLICAS = range(3)  # what a row of `_LOADS` tells


def _loads() -> CompoundSelect[Any]:
    """Return a SELECT of a row for each line of the models, for what runs of each, and for the replicas of each."""
    models: BindParameter[str] = bindparam("models", expanding=True)
    roles: BindParameter[str] = bindparam("roles", expanding=True)
    left_s = renders.c.cost_s * (1 - renders.c.steps_done * 1.0 / renders.c.steps)
    totals = (queue_totals.c.tenant, queue_totals.c.priority, queue_totals.c.queued, queue_totals.c.cost_s)
    return union_all(
        select(_kind(_OF_LINE), queue_totals.c.model, *totals).where(
            queue_totals.c.model.in_(models), queue_totals.c.bucket == WHOLE_LINE
        ),
        select(_kind(_OF_RUNNING), renders.c.model, null(), null(), func.count(), func.sum(left_s))
        .where(_RUNNING, renders.c.model.in_(models))
        .group_by(renders.c.model),
        select(_kind(_OF_REPLICAS), leaders.c.role, null(), null(), leaders.c.replicas, null()).where(
            leaders.c.role.in_(roles)
        ),
    )


def _kind(kind: int) -> ColumnElement[int]:
    return literal_column(str(kind), Integer())


_LOADS = _loads()
_MODEL = bindparam("model", type_=String())
_OLDEST = select(func.min(renders.c.created_at)).where(_QUEUED, renders.c.model == _MODEL)


@lru_cache(maxsize=256)
def _candidates(lines: int, pairs: int, window: int) -> CompoundSelect[Any]:
    """Return the statement for so many lines and pairs; `_values` gives its parameters.

    Cached, because building the statement takes longer than running it.
    """
    heads = [select(_head(number, window)) for number in range(lines)]
    return union_all(*heads, _oldest_of_pairs(lines, pairs)) if pairs else union_all(*heads)


def _values(model: str, lines: Sequence[Line], pairs: Sequence[str]) -> dict[str, str | int]:
    values: dict[str, str | int] = {"model": model, **{f"pair_{number}": pair for number, pair in enumerate(pairs)}}
    for number, line in enumerate(lines):
        values[f"tenant_{number}"], values[f"priority_{number}"] = line.tenant, line.priority.rank
    return values


def _line(number: int) -> tuple[BindParameter[str], BindParameter[int]]:
    return bindparam(f"tenant_{number}", type_=String()), bindparam(f"priority_{number}", type_=Integer())


def _head(number: int, window: int) -> Subquery:
    # A subquery: SQLite allows no LIMIT directly in a part of a UNION.
    columns = (renders.c.model, renders.c.tenant, renders.c.priority)
    length = literal_column(str(window), Integer())
    return _queued_first(select(*_WAITING), columns, (_MODEL, *_line(number))).limit(length).subquery()


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
    columns = (renders.c.model, renders.c.pair_key, renders.c.tenant, renders.c.priority)
    wanted = (_MODEL, wanted_pairs.c.pair_key, wanted_lines.c.tenant, wanted_lines.c.priority)
    first = _queued_first(select(renders.c.id), columns, wanted).limit(_ONE)
    oldest = first.correlate(wanted_pairs, wanted_lines).scalar_subquery()
    ids = select(oldest).select_from(wanted_pairs.join(wanted_lines, literal(True)))
    return select(*_WAITING).where(renders.c.id.in_(ids), _QUEUED)


def _to_waiting(row: Sequence[Any]) -> Waiting:
    render_id, tenant, rank, pair_key, created_at, cost_s = row
    return Waiting(render_id, tenant, Priority.of_rank(rank), pair_key, created_at, cost_s)
