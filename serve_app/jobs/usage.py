"""Usage of tenants (metering): measured GPU seconds of the day, and predicted GPU seconds of what has not ended.

Example:
    usage = await store.usage.of("team-a", gpus={})
    usage.gpu_s, usage.reserved_s
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
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

from serve_app.jobs.database import Database, Upsert
from serve_app.jobs.load import Amount
from serve_app.jobs.records import Claim
from serve_app.jobs.states import RenderState
from serve_app.jobs.tables import WHOLE_LINE, queue_totals, renders, tenant_usage

DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Usage:
    """What one tenant uses now, of all models, and has used today (UTC); costs are GPU seconds."""

    queued: Amount = field(default_factory=Amount)
    running: Amount = field(default_factory=Amount)
    gpu_s: float = 0.0  # measured, of renders that have ended
    renders: int = 0  # that have ended

    @property
    def reserved_s(self) -> float:
        """Return the predicted seconds of what has not ended."""
        return self.queued.cost_s + self.running.cost_s

    def plus(self, asked: Amount) -> "Usage":
        """Return the usage with `asked` added to what is queued."""
        return replace(self, queued=self.queued + asked)


class Usages:
    """The usage of the tenants of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of(self, tenant: str, gpus: Mapping[str, int]) -> Usage:
        """Return the usage of a tenant; `gpus` are those of a Generator, by model, if not 1."""
        return (await self._database.read(partial(read_usages, tenants=[tenant], gpus=gpus)))[tenant]


def read_usages(connection: Connection, tenants: Collection[str], gpus: Mapping[str, int]) -> dict[str, Usage]:
    """Return the usage of each of these tenants; `gpus` are those of a Generator, by model, if not 1."""
    if not tenants:
        return {}
    found = dict.fromkeys(tenants, Usage())
    rows = connection.execute(_USAGES, {"tenants": list(tenants), "day": day_of(time())}).all()
    for kind, tenant, model, count, seconds in rows:
        usage, amount = found[tenant], Amount(int(count), float(seconds) * gpus.get(model, 1))
        if kind == _OF_QUEUED:
            found[tenant] = usage.plus(amount)
        elif kind == _OF_RUNNING:
            found[tenant] = replace(usage, running=usage.running + amount)
        else:
            found[tenant] = replace(usage, gpu_s=float(seconds), renders=int(count))
    return found


_OF_QUEUED, _OF_RUNNING, _OF_TODAY = range(3)  # the kinds of rows of `_USAGES`


def _usages() -> CompoundSelect[Any]:
    """Return a SELECT with a row for each model that a tenant has queued or running renders of, and one for its day.

    It is one statement, built once, because every submission with such a limit waits for it. The state is a literal:
    for a parameter SQLite does not use the partial index of running renders, and would read all that were ever made.
    """
    tenants: BindParameter[str] = bindparam("tenants", expanding=True)
    totals, used = queue_totals.c, tenant_usage.c
    is_running = renders.c.state == literal_column(f"'{RenderState.PROCESSING}'")
    return union_all(
        select(_kind(_OF_QUEUED), totals.tenant, totals.model, func.sum(totals.queued), func.sum(totals.cost_s))
        .where(totals.tenant.in_(tenants), totals.bucket == WHOLE_LINE)
        .group_by(totals.tenant, totals.model),
        select(_kind(_OF_RUNNING), renders.c.tenant, renders.c.model, func.count(), func.sum(renders.c.cost_s))
        .where(is_running, renders.c.tenant.in_(tenants))
        .group_by(renders.c.tenant, renders.c.model),
        select(_kind(_OF_TODAY), used.tenant, null(), used.renders, used.gpu_s).where(
            used.tenant.in_(tenants), used.day == bindparam("day", type_=Integer())
        ),
    )


def _kind(kind: int) -> ColumnElement[int]:
    return literal_column(str(kind), Integer())


_USAGES = _usages()


def add_use(connection: Connection, insert: Upsert, claim: Claim) -> None:
    """Add the time from a claim until now to its tenant's usage of today; `insert` is an INSERT into `tenant_usage`.

    A claim that was lost with its replica is not counted: the tenant got nothing for it.
    """
    seconds = max(0.0, time() - claim.claimed_at) * claim.gpus
    row = insert.values(tenant=claim.tenant, day=day_of(time()), gpu_s=seconds, renders=1)
    used = tenant_usage.c
    connection.execute(
        row.on_conflict_do_update(
            index_elements=["tenant", "day"], set_={"gpu_s": used.gpu_s + seconds, "renders": used.renders + 1}
        )
    )


def day_of(at: float) -> int:
    """Return the day of a time, in days since 1970-01-01 (UTC)."""
    return int(at // DAY_S)


def until_tomorrow_s(at: float) -> int:
    """Return the seconds until the next day begins (UTC)."""
    return math.ceil((day_of(at) + 1) * DAY_S - at)
