"""The scheduling side of the job store: load and candidates of a model, at a cost that does not grow with the queue.

Example:
    queue = store.queue("wan22_14b_t2v")  # each model has its own
    load = await queue.load()
    waiting = await queue.candidates(list(load.lines), pairs=("pair a",), window=32)

Sums come from the table `queue_totals`, candidates from partial indexes over queued renders (`candidates`); positions
of requests are in `standings`. docs/queue.md gives the reasons and the measured times.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from time import time
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    CompoundSelect,
    Connection,
    Integer,
    bindparam,
    func,
    literal_column,
    null,
    select,
    union_all,
)

from serve_app.jobs import candidates
from serve_app.jobs.coordination import dispatcher_of
from serve_app.jobs.database import Database
from serve_app.jobs.load import Amount, Load
from serve_app.jobs.records import Line, Waiting
from serve_app.jobs.states import RenderState
from serve_app.jobs.tables import WHOLE_LINE, leaders, queue_totals, renders
from serve_app.spec import Priority

_OF_RUNNING_RENDER = (  # as the fields of Running
    renders.c.replica,
    renders.c.request_id,
    renders.c.index,
    renders.c.attempt,
    renders.c.steps_done,
    renders.c.steps,
)
# A literal, not a parameter: PostgreSQL uses a partial index only if the statement itself implies its condition.
_RUNNING = renders.c.state == literal_column(f"'{RenderState.PROCESSING}'")


@dataclass(frozen=True, slots=True)
class Running:
    """A claimed render, as of its last heartbeat."""

    replica: str
    request_id: str
    index: int
    attempt: int
    steps_done: int
    steps: int


MOST_LINES = 500
"""Lines that one statement asks for."""


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

        At most `MOST_LINES` lines and as many pairs: each is one SELECT in a UNION, and SQLite takes no more.
        """
        if not lines:
            return []
        statement = candidates.statement(len(lines), len(pairs), window)
        values = candidates.parameters(self._model, lines, pairs)
        found = await self._database.read(
            lambda connection: connection.execute(statement, values).all(), generic_plan=True
        )
        return [_to_waiting(row) for _, row in sorted({row[0]: row for row in found}.items())]

    async def oldest_waits_s(self) -> dict[Priority, float]:
        """Return the seconds that the oldest queued render of each priority has waited, if one is queued."""
        lines = list((await self.load()).lines)
        groups = [lines[start : start + MOST_LINES] for start in range(0, len(lines), MOST_LINES)]
        heads = [head for group in groups for head in await self.candidates(group, (), window=1)]
        now, waits = time(), dict[Priority, float]()
        for head in heads:
            waits[head.priority] = max(waits.get(head.priority, 0.0), now - head.created_at)
        return waits


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


_OF_LINE, _OF_RUNNING, _OF_REPLICAS = range(3)  # the kinds of rows of `_LOADS`


def _loads() -> CompoundSelect[Any]:
    """Return a SELECT with a row for each line of the models, and for the running renders and replicas of each."""
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


def _to_waiting(row: Sequence[Any]) -> Waiting:
    render_id, tenant, rank, pair_key, created_at, cost_s = row
    return Waiting(render_id, tenant, Priority.of_rank(rank), pair_key, created_at, cost_s)
