"""Many processes at once, on lines and requests that they share: nobody fails, and the sums stay right."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import monotonic

import pytest
from sqlalchemy import select

from serve_app.errors import RenderFailed, RequestNotEnded, RequestNotFound
from serve_app.jobs.records import Claim, Idempotency
from serve_app.jobs.states import RenderState
from serve_app.jobs.store import JobStore
from serve_app.jobs.tables import renders
from serve_app.spec import Priority
from tests.fixtures.specs import MODEL
from tests.fixtures.store import connect, queued
from tests.serve_app.jobs.helpers import LEASE_S, counted_totals, kept_totals, new_request, other_stores, output

SECONDS = 3.0
WORKERS = 4  # of each store
MAX_ATTEMPTS = 2

Act = Callable[[], Awaitable[object]]


class Process:
    """One job store, and what the clients and replicas that use it do."""

    def __init__(self, store: JobStore, ids: list[str], claims: list[Claim], chance: random.Random) -> None:
        """`ids` of requests and `claims` are shared with the other processes."""
        self._store = store
        self._ids = ids
        self._claims = claims
        self._chance = chance
        self.counted: list[tuple[int, str]] = []  # renders and what ended each for good

    async def run(self, until: float) -> None:
        """Do one thing after another."""
        acts: list[Act] = [self._submit, self._claim, self._claim, self._end, self._end, self._cancel, self._remove]
        while monotonic() < until:
            await self._chance.choice([*acts, self._renew, self._expire])()

    async def _submit(self) -> None:
        new = new_request(
            self._chance.randint(1, 4),
            tenant=self._chance.choice("abc"),
            priority=self._chance.choice(list(Priority)),
            idempotency=Idempotency(key=str(self._chance.randint(0, 300)), digest="digest"),
        )
        self._ids.append((await self._store.requests.submit(new)).request_id)

    async def _claim(self) -> None:
        if waiting := (await queued(self._store))[:10]:
            render_id = self._chance.choice(waiting).render_id
            lease_s = self._chance.choice([LEASE_S, -1])
            if claim := await self._store.claims.claim(render_id, "replica", lease_s):
                self._claims.append(claim)

    async def _renew(self) -> None:
        if self._claims:
            claim = self._chance.choice(self._claims)
            await self._store.claims.renew(claim, self._chance.randint(0, 4), LEASE_S)

    async def _end(self) -> None:
        """Of a claim that counts, or did once."""
        if not self._claims:
            return
        claim = self._chance.choice(self._claims[-20:])
        end = self._chance.choice(["succeed", "fail", "cancel", "release"])
        if end == "release":
            await self._store.claims.release(claim, MAX_ATTEMPTS)
            return
        ends: dict[str, Act] = {
            "succeed": lambda: self._store.claims.succeed(claim, output(claim)),
            "fail": lambda: self._store.claims.fail(claim, RenderFailed("no luck")),
            "cancel": lambda: self._store.claims.cancel(claim),
        }
        if await ends[end]():
            self.counted.append((claim.render_id, end))

    async def _expire(self) -> None:
        await self._store.claims.expire_leases(MODEL, MAX_ATTEMPTS)

    async def _cancel(self) -> None:
        if self._ids:
            with suppress(RequestNotFound):
                await self._store.requests.cancel(self._chance.choice(self._ids[-20:]))

    async def _remove(self) -> None:
        if self._ids:
            with suppress(RequestNotFound, RequestNotEnded):
                await self._store.requests.remove(self._chance.choice(self._ids))


@pytest.mark.slow
async def test_whatever_many_processes_do_at_once_the_sums_stay_right(store: JobStore, database_url: str) -> None:
    ids: list[str] = []
    claims: list[Claim] = []
    async with other_stores(database_url, 3) as others:
        processes = [Process(one, ids, claims, random.Random(n)) for n, one in enumerate([store, *others])]
        until = monotonic() + SECONDS
        async with asyncio.TaskGroup() as workers:
            for process in processes * WORKERS:
                workers.create_task(process.run(until))
    assert kept_totals(database_url) == counted_totals(database_url)
    counted = [end for process in processes for end in process.counted]
    ends = dict(counted)
    assert len(ends) == len(counted), "a render ended twice"
    assert_ends_are_kept(database_url, ends)
    for request_id in set(ids):
        with suppress(RequestNotFound):
            await store.requests.cancel(request_id)
    while await store.claims.expire_leases(MODEL, MAX_ATTEMPTS):
        pass
    assert kept_totals(database_url) == {}
    assert (await store.queue(MODEL).load()).lines == {}


def assert_ends_are_kept(url: str, ends: dict[int, str]) -> None:
    """Check that every render that a claim ended is as that claim left it, or was removed since."""
    states = {"succeed": RenderState.SUCCEEDED, "fail": RenderState.FAILED, "cancel": RenderState.CANCELED}
    with connect(url) as connection:
        stored = {row.id: row.state for row in connection.execute(select(renders.c.id, renders.c.state))}
    assert {number: stored[number] for number in ends.keys() & stored.keys()} == {
        number: states[end] for number, end in ends.items() if number in stored
    }
