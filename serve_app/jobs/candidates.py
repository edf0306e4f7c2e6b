"""Statements that read the candidates of a scheduling decision from partial indexes over the queued renders.

Example:
    oldest = statement(lines=2, pairs=1, window=32)
    values = parameters("wan22_14b_t2v", lines=[line, other_line], pairs=["pair a"])
    rows = connection.execute(oldest, values).all()  # columns as the fields of `Waiting`

docs/queue.md explains the indexes, and gives the measured times.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    CompoundSelect,
    Integer,
    Select,
    String,
    Subquery,
    and_,
    bindparam,
    literal,
    literal_column,
    select,
    tuple_,
    union_all,
)

from serve_app.jobs.records import Line
from serve_app.jobs.states import RenderState
from serve_app.jobs.tables import renders

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
_MODEL = bindparam("model", type_=String())


@lru_cache(maxsize=256)
def statement(lines: int, pairs: int, window: int) -> CompoundSelect[Any]:
    """Return the SELECT for these numbers of lines and pairs; `parameters` gives the values.

    Cached, because building the statement takes longer than running it.
    """
    heads = [select(_head(number, window)) for number in range(lines)]
    return union_all(*heads, _oldest_of_pairs(lines, pairs)) if pairs else union_all(*heads)


def parameters(model: str, lines: Sequence[Line], pairs: Sequence[str]) -> dict[str, str | int]:
    """Return the values of the parameters of `statement` for these lines and pairs of a model."""
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
