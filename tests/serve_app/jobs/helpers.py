"""What the tests of the job store do again and again."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from time import time
from typing import Any
from uuid import uuid4

from sqlalchemy import select

from serve_app.jobs.database import Database
from serve_app.jobs.load import Amount
from serve_app.jobs.records import Claim, Line, NewRequest, Output
from serve_app.jobs.standings import read_ahead
from serve_app.jobs.states import RenderState
from serve_app.jobs.store import JobStore
from serve_app.jobs.tables import BUCKET, WHOLE_LINE, queue_totals, renders
from serve_app.spec import Priority
from tests.fixtures.results import make_output
from tests.fixtures.specs import MODEL, make_spec
from tests.fixtures.store import connect, queued

LEASE_S = 30.0


def new_request(count: int = 1, *, pair: str = "a", costs: Sequence[float] = (), **changes: Any) -> NewRequest:
    """Return a request of `count` renders, each predicted to cost a second where no costs are given."""
    costs = tuple(costs) or (1.0,) * count
    values: dict[str, Any] = {
        "id": str(uuid4()),
        "model": MODEL,
        "created_at": time(),
        "specs": tuple(make_spec(seed=index, pair=pair) for index in range(len(costs))),
        "costs": costs,
    }
    return NewRequest(**{**values, **changes})


async def submit(store: JobStore, renders: int = 1, **changes: Any) -> str:
    """Return the id of a new request; see `new_request`."""
    return (await store.requests.submit(new_request(renders, **changes))).request_id


async def claim_next(store: JobStore, lease_s: float = LEASE_S) -> Claim:
    """Take the oldest queued render."""
    oldest, *_ = await queued(store)
    claim = await store.claims.claim(oldest.render_id, "replica", lease_s)
    assert claim is not None
    return claim


def output(claim: Claim) -> Output:
    """Return what the holder of a claim publishes."""
    return make_output(claim)


async def ahead_of(url: str, *render_ids: int) -> list[Amount]:
    """Return what waits in the same line before each of the renders."""
    database = Database(url)
    try:
        found = await database.read(partial(read_ahead, render_ids=render_ids))
        return [found[render_id] for render_id in render_ids]
    finally:
        await database.close()


async def states(store: JobStore, request_id: str) -> list[RenderState]:
    """Of the request's renders, in the order of its prompts."""
    return [render.state for render in (await store.requests.get(request_id)).renders]


@asynccontextmanager
async def other_stores(url: str, count: int) -> AsyncIterator[list[JobStore]]:
    """Yield job stores on the same database, as other processes have them."""
    stores = [JobStore(url) for _ in range(count)]
    try:
        yield stores
    finally:
        for store in stores:
            await store.close()


Totals = dict[tuple[str, Line, int], Amount]


def kept_totals(url: str) -> Totals:
    """Return what the database keeps: by model, line and bucket, and for the whole line, what waits."""
    with connect(url) as connection:
        rows = connection.execute(select(queue_totals)).all()
    return {
        (row.model, Line(row.tenant, Priority.of_rank(row.priority)), row.bucket): Amount(row.queued, row.cost_s)
        for row in rows
    }


def counted_totals(url: str) -> Totals:
    """Return the same, counted anew."""
    query = select(renders.c.id, renders.c.model, renders.c.tenant, renders.c.priority, renders.c.cost_s)
    with connect(url) as connection:
        rows = connection.execute(query.where(renders.c.state == RenderState.QUEUED)).all()
    totals: Totals = {}
    for row in rows:
        line = Line(row.tenant, Priority.of_rank(row.priority))
        for bucket in (WHOLE_LINE, row.id // BUCKET):
            key = (row.model, line, bucket)
            totals[key] = totals.get(key, Amount()) + Amount(1, row.cost_s)
    return totals
