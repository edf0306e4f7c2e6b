"""The scheduling side: load, candidates and positions; the standing of requests, asked one by one and together."""

import asyncio
from collections.abc import Awaitable, Callable
from uuid import uuid4

import pytest

from serve_app.errors import RenderFailed, RequestNotFound
from serve_app.jobs.load import Amount
from serve_app.jobs.records import Claim, Line, Waiting
from serve_app.jobs.states import RenderState
from serve_app.jobs.store import JobStore
from serve_app.jobs.tables import BUCKET, WHOLE_LINE
from serve_app.spec import Priority
from tests.fixtures.specs import MODEL, make_spec
from tests.fixtures.store import queued
from tests.serve_app.jobs.helpers import (
    LEASE_S,
    ahead_of,
    claim_next,
    counted_totals,
    kept_totals,
    new_request,
    output,
    submit,
)

A, A_HIGH, B = Line("a", Priority.NORMAL), Line("a", Priority.HIGH), Line("b", Priority.NORMAL)


async def submit_to(store: JobStore, line: Line, *costs: float, pair: str = "a") -> str:
    return await submit(store, costs=costs, tenant=line.tenant, priority=line.priority, pair=pair)


def requests_of(waiting: list[Waiting]) -> list[tuple[Line, float]]:
    """Told apart by their costs."""
    return [(render.line, render.cost_s) for render in waiting]


async def test_an_empty_queue_has_no_lines(store: JobStore) -> None:
    load = await store.queue(MODEL).load()
    assert (load.lines, load.running, load.queued) == ({}, Amount(), Amount())
    assert await store.queue(MODEL).oldest_waits_s() == {}


async def test_what_waits_is_summed_by_line(store: JobStore) -> None:
    await submit_to(store, A, 1, 2)
    await submit_to(store, A, 4)
    await submit_to(store, A_HIGH, 8)
    await submit_to(store, B, 16, 32)
    load = await store.queue(MODEL).load()
    assert load.lines == {A: Amount(3, 7), A_HIGH: Amount(1, 8), B: Amount(2, 48)}
    assert load.of_tenant("a") == Amount(4, 15)
    assert load.queued == Amount(6, 63)


async def test_of_what_runs_only_what_is_still_to_come_counts(store: JobStore) -> None:
    await submit_to(store, A, 8, 16)
    early, late = await claim_next(store), await claim_next(store)
    assert (await store.queue(MODEL).load()).running == Amount(2, 24)
    await store.claims.renew(late, steps_done=3, lease_s=LEASE_S)  # of four
    assert (await store.queue(MODEL).load()).running == Amount(2, 12)
    await store.claims.succeed(early, output(early))
    load = await store.queue(MODEL).load()
    assert (load.running, load.lines) == (Amount(1, 4), {})


Change = Callable[[JobStore, Claim], Awaitable[object]]

# What happens to the first of three renders that are claimed of four, and how many then wait and run.
CHANGES: dict[str, tuple[Change, int, int]] = {
    "nothing": (lambda store, claim: store.claims.renew(claim, 0, LEASE_S), 1, 3),
    "succeeded": (lambda store, claim: store.claims.succeed(claim, output(claim)), 1, 2),
    "failed": (lambda store, claim: store.claims.fail(claim, RenderFailed("no luck")), 0, 2),
    "canceled": (lambda store, claim: store.claims.cancel(claim), 1, 2),
    "lost": (lambda store, claim: store.claims.release(claim, max_attempts=2), 2, 2),
    "lost for good": (lambda store, claim: store.claims.release(claim, max_attempts=1), 0, 2),
    "request canceled": (lambda store, claim: store.requests.cancel(claim.request_id), 0, 3),
}


@pytest.mark.parametrize(("change", "waiting", "running"), CHANGES.values(), ids=CHANGES)
async def test_the_sums_follow_every_change(
    store: JobStore, database_url: str, change: Change, waiting: int, running: int
) -> None:
    await submit_to(store, A, 2, 2, 2, 2)
    claims = [await claim_next(store) for _ in range(3)]
    await change(store, claims[0])
    load = await store.queue(MODEL).load()
    assert (load.queued, load.running) == (Amount(waiting, 2 * waiting), Amount(running, 2 * running))
    assert kept_totals(database_url) == counted_totals(database_url)


async def test_a_line_that_has_emptied_leaves_no_row_behind(store: JobStore, database_url: str) -> None:
    await submit_to(store, A, *[0.1] * 20)  # a sum of tenths is none: what is left of it must not matter
    await submit_to(store, B, 0.3)
    for _ in range(21):
        claim = await claim_next(store)
        await store.claims.succeed(claim, output(claim))
    assert kept_totals(database_url) == {}
    assert (await store.queue(MODEL).load()).lines == {}


async def test_each_line_shows_its_oldest_renders(store: JobStore) -> None:
    for cost_s in (1, 2, 3):
        await submit_to(store, A, cost_s)
        await submit_to(store, B, 10 * cost_s)
    await submit_to(store, A_HIGH, 100)
    seen = await store.queue(MODEL).candidates([A, A_HIGH, B], [], window=2)
    assert requests_of(seen) == [(A, 1), (B, 10), (A, 2), (B, 20), (A_HIGH, 100)]
    assert requests_of(await store.queue(MODEL).candidates([B], [], window=1)) == [(B, 10)]
    assert await store.queue(MODEL).candidates([], ["any"], window=5) == []
    assert await store.queue(MODEL).candidates([Line("nobody", Priority.LOW)], ["any"], window=5) == []


async def test_each_pair_shows_its_oldest_render_of_each_line(store: JobStore) -> None:
    await submit_to(store, A, 1, 2)
    await submit_to(store, B, 10, pair="x")
    for line, costs in ((A, (3, 4)), (B, (20, 30)), (A_HIGH, (200, 300))):
        await submit_to(store, line, *costs, pair="y")
    y = make_spec(pair="y").pair_key
    seen = await store.queue(MODEL).candidates([A, B], [y, "of-nobody"], window=1)
    assert requests_of(seen) == [(A, 1), (B, 10), (A, 3), (B, 20)]
    assert [render.pair_key for render in seen[2:]] == [y, y]


async def test_a_render_that_is_oldest_of_its_line_and_of_its_pair_is_shown_once(store: JobStore) -> None:
    await submit_to(store, A, 1, 2)
    seen = await store.queue(MODEL).candidates([A], [make_spec(pair="a").pair_key], window=1)
    assert requests_of(seen) == [(A, 1)]


async def test_a_render_given_back_has_its_old_place(store: JobStore) -> None:
    await submit_to(store, A, 1, 2)
    lost = await claim_next(store)
    assert requests_of(await queued(store)) == [(A, 2)]
    await store.claims.release(lost, max_attempts=2)
    assert requests_of(await queued(store)) == [(A, 1), (A, 2)]


async def test_the_place_in_a_line_longer_than_a_bucket_is_exact(store: JobStore, database_url: str) -> None:
    await submit_to(store, A, *[64.0] * 3)
    await submit_to(store, B, 1000)
    record = await store.requests.get(await submit_to(store, A, *(float(2 ** (n % 8)) for n in range(BUCKET + 100))))
    assert {bucket for _, line, bucket in kept_totals(database_url) if line == A} == {WHOLE_LINE, 0, 1}
    assert kept_totals(database_url) == counted_totals(database_url)
    of_bucket_1 = next(n for n, render in enumerate(record.renders) if render.id >= BUCKET)
    places = (0, 1, of_bucket_1 - 1, of_bucket_1, of_bucket_1 + 1, len(record.renders) - 1)
    assert await ahead_of(database_url, *(record.renders[n].id for n in places)) == [
        Amount(3 + n, 3 * 64.0 + sum(render.cost_s for render in record.renders[:n])) for n in places
    ]


async def test_what_no_longer_waits_is_not_ahead(store: JobStore, database_url: str) -> None:
    await submit_to(store, A, 1, 2)
    canceled = await submit_to(store, A, *[4.0] * BUCKET)
    first, second = (render.id for render in (await store.requests.get(await submit_to(store, A, 8, 16))).renders)
    await claim_next(store)
    assert await ahead_of(database_url, second) == [Amount(BUCKET + 2, 2 + 4 * BUCKET + 8)]
    await store.requests.cancel(canceled)
    assert await ahead_of(database_url, first, second) == [Amount(1, 2), Amount(2, 10)]


async def test_the_longest_wait_is_that_of_the_oldest_render_of_any_line_of_a_priority(store: JobStore) -> None:
    now = new_request().created_at
    for line, age_s in ((A, 100), (B, 1000), (B, 50), (A_HIGH, 500)):
        request = new_request(tenant=line.tenant, priority=line.priority, created_at=now - age_s)
        await store.requests.submit(request)
    assert await store.queue(MODEL).oldest_waits_s() == {
        Priority.NORMAL: pytest.approx(1000, abs=30),
        Priority.HIGH: pytest.approx(500, abs=30),
    }
    oldest = next(render for render in await queued(store) if render.created_at < now - 700)
    assert await store.claims.claim(oldest.render_id, "replica", LEASE_S)
    assert (await store.queue(MODEL).oldest_waits_s())[Priority.NORMAL] == pytest.approx(100, abs=30)


@pytest.mark.slow
async def test_the_longest_wait_is_found_among_any_number_of_lines(store: JobStore) -> None:
    now = new_request().created_at
    # More than 500, which is the most SELECTs that SQLite takes in a UNION.
    waiting = [new_request(tenant=f"tenant{number}", created_at=now - number) for number in range(600)]
    await asyncio.gather(*map(store.requests.submit, waiting))
    assert (await store.queue(MODEL).oldest_waits_s())[Priority.NORMAL] == pytest.approx(599, abs=60)


async def test_a_thousand_renders_of_one_request_are_canceled_together(store: JobStore, database_url: str) -> None:
    request_id = await submit(store, 1000)
    assert (await store.queue(MODEL).load()).queued == Amount(1000, 1000)
    record = await store.requests.cancel(request_id)
    assert {render.state for render in record.renders} == {RenderState.CANCELED}
    assert kept_totals(database_url) == {}


async def test_many_that_ask_together_hear_what_each_would_hear_alone(store: JobStore) -> None:
    ids = [
        (await store.requests.submit(new_request(costs=costs, tenant=tenant, priority=priority))).request_id
        for tenant in ("a", "b")
        for priority in Priority
        for costs in ((1.0,), (2.0, 4.0))
    ]
    await store.claims.succeed(claim := await claim_next(store), output(claim))
    await claim_next(store)
    await store.requests.cancel(ids[-1])
    alone = [await store.requests.standing(request_id) for request_id in ids]
    assert await asyncio.gather(*map(store.requests.standing, ids * 5)) == alone * 5
    assert [standing.record.id for standing in alone] == ids


async def test_a_request_without_queued_renders_has_no_place(store: JobStore) -> None:
    request_id = await submit(store)
    await submit(store)
    claim = await claim_next(store)
    assert (await store.requests.standing(request_id)).place is None
    await store.claims.succeed(claim, output(claim))
    assert (await store.requests.standing(request_id)).place is None


async def test_the_place_is_that_of_the_first_render_that_still_waits(store: JobStore) -> None:
    before = await submit(store, costs=(8.0,))
    request_id = await submit(store, costs=(1.0, 2.0))
    await submit(store, costs=(16.0,))
    place = (await store.requests.standing(request_id)).place
    assert place is not None
    assert place.ahead == Amount(1, 8)
    assert place.load.lines == {Line("default", Priority.NORMAL): Amount(4, 27)}
    await store.requests.cancel(before)
    await claim_next(store)
    place = (await store.requests.standing(request_id)).place
    assert place is not None
    assert (place.ahead, place.load.running) == (Amount(), Amount(1, 1))


async def test_an_id_that_names_nothing_is_an_error_for_its_asker_only(store: JobStore) -> None:
    request_id = await submit(store)
    found, missing = await asyncio.gather(
        store.requests.standing(request_id), store.requests.standing(str(uuid4())), return_exceptions=True
    )
    assert not isinstance(found, BaseException)
    assert found.record.id == request_id
    assert isinstance(missing, RequestNotFound)
    with pytest.raises(RequestNotFound):
        await store.requests.standing("no-such-id")
