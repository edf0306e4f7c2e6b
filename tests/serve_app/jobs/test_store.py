"""The job store on a real database: durability, claims, fencing, cancel."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError
from sqlalchemy import select, text

from serve_app.errors import RenderFailed, RequestNotEnded, RequestNotFound, StoreUnavailable
from serve_app.jobs.states import RenderState
from serve_app.jobs.store import JobStore
from serve_app.jobs.tables import leaders
from tests.fixtures.specs import MODEL, make_spec
from tests.fixtures.store import connect, queued
from tests.postgres_server import PostgresServer
from tests.serve_app.jobs.helpers import LEASE_S, claim_next, other_stores, output, states, submit


async def test_a_submitted_request_outlives_the_process_that_took_it(store: JobStore, database_url: str) -> None:
    request_id = await submit(store, renders=3)
    await store.close()
    other = JobStore(database_url)
    record = await other.requests.get(request_id)
    assert [render.spec for render in record.renders] == [make_spec(seed=seed) for seed in range(3)]
    assert record.state is RenderState.QUEUED
    await other.close()


async def test_an_unknown_request_is_named(store: JobStore) -> None:
    with pytest.raises(RequestNotFound, match="no-such-id"):
        await store.requests.get("no-such-id")
    with pytest.raises(RequestNotFound):
        await store.requests.cancel("no-such-id")


async def test_what_is_refused_leaves_no_transaction_open(store: JobStore, database_url: str) -> None:
    request_id = await submit(store)
    async with other_stores(database_url, 1) as (other,):
        for _ in range(3):
            with pytest.raises(RequestNotFound):
                await store.requests.cancel("no-such-id")
            with pytest.raises(RequestNotEnded):
                await store.requests.remove(request_id)
            async with asyncio.timeout(5):
                await submit(other)
                await submit(store)


async def test_renders_wait_in_order_of_arrival(store: JobStore) -> None:
    first, second = await submit(store, 2), await submit(store, 2, pair="b")
    waiting = await queued(store)
    assert [w.render_id for w in waiting] == sorted(w.render_id for w in waiting)
    assert len(waiting) == 4
    assert waiting[0].pair_key == waiting[1].pair_key != waiting[2].pair_key
    for request_id, ahead in ((first, 0), (second, 2)):
        place = (await store.requests.standing(request_id)).place
        assert place is not None
        assert place.ahead.renders == ahead


async def test_of_many_claims_for_one_render_one_wins(store: JobStore) -> None:
    await submit(store)
    (waiting,) = await queued(store)
    claims = await asyncio.gather(*(store.claims.claim(waiting.render_id, f"replica-{n}", LEASE_S) for n in range(20)))
    assert sum(claim is not None for claim in claims) == 1
    assert await queued(store) == []


async def test_a_request_succeeds_when_all_its_renders_do(store: JobStore) -> None:
    request_id = await submit(store, renders=2)
    one, two = await claim_next(store), await claim_next(store)
    assert await store.claims.succeed(two, output(two))
    record = await store.requests.get(request_id)
    assert (record.state, record.progress, record.finished_at) == (RenderState.PROCESSING, 0.5, None)
    assert await store.claims.succeed(one, output(one))
    record = await store.requests.get(request_id)
    assert (record.state, record.progress) == (RenderState.SUCCEEDED, 1.0)
    assert record.started_at is not None
    assert record.finished_at is not None
    assert record.created_at <= record.started_at <= record.finished_at
    assert [render.output for render in record.renders] == [output(one), output(two)]


async def test_progress_counts_steps_of_running_renders(store: JobStore) -> None:
    request_id = await submit(store, renders=2)
    claim = await claim_next(store)
    assert await store.claims.renew(claim, steps_done=3, lease_s=LEASE_S) is False
    assert (await store.requests.get(request_id)).progress == 3 / 8


async def test_the_first_failure_fails_the_request_and_cancels_the_rest(store: JobStore) -> None:
    request_id = await submit(store, renders=3)
    failing, running = await claim_next(store), await claim_next(store)
    assert await store.claims.fail(failing, RenderFailed("the fox ran away"))
    record = await store.requests.get(request_id)
    assert record.state is RenderState.FAILED
    assert record.finished_at is not None
    assert record.failure is not None
    assert (record.failure.error_code, record.failure.error_message) == ("RENDER_FAILED", "the fox ran away")
    assert await states(store, request_id) == [
        RenderState.FAILED,
        RenderState.PROCESSING,
        RenderState.CANCELED,
    ]
    assert await store.claims.renew(running, 1, LEASE_S) is True
    assert await store.claims.cancel(running)
    assert await states(store, request_id) == [RenderState.FAILED, RenderState.CANCELED, RenderState.CANCELED]


async def test_cancel_ends_what_is_queued_and_marks_what_runs(store: JobStore) -> None:
    request_id = await submit(store, renders=2)
    claim = await claim_next(store)
    for _ in range(2):  # idempotent
        record = await store.requests.cancel(request_id)
        assert [r.state for r in record.renders] == [RenderState.PROCESSING, RenderState.CANCELED]
    assert await store.claims.renew(claim, 1, LEASE_S) is True
    assert await store.claims.cancel(claim)
    assert (await store.requests.get(request_id)).state is RenderState.CANCELED


async def test_cancel_leaves_a_finished_request_as_it_is(store: JobStore) -> None:
    request_id = await submit(store)
    claim = await claim_next(store)
    await store.claims.succeed(claim, output(claim))
    assert (await store.requests.cancel(request_id)).state is RenderState.SUCCEEDED


async def test_an_expired_lease_gives_the_render_back_and_fences_its_holder_off(store: JobStore) -> None:
    request_id = await submit(store)
    zombie = await claim_next(store, lease_s=-1)
    assert await store.claims.expire_leases(MODEL, max_attempts=3) == 1
    assert await states(store, request_id) == [RenderState.QUEUED]
    newer = await claim_next(store)
    assert (newer.attempt, zombie.attempt) == (2, 1)
    assert await store.claims.renew(zombie, 1, LEASE_S) is None
    assert not await store.claims.succeed(zombie, output(zombie))
    assert not await store.claims.fail(zombie, RenderFailed("late"))
    assert not await store.claims.cancel(zombie)
    await store.claims.release(zombie, max_attempts=3)
    assert await states(store, request_id) == [RenderState.PROCESSING]
    assert await store.claims.succeed(newer, output(newer))
    assert (await store.requests.get(request_id)).renders[0].output == output(newer)


async def test_a_live_lease_is_left_alone(store: JobStore) -> None:
    await submit(store)
    await claim_next(store)
    assert await store.claims.expire_leases(MODEL, max_attempts=3) == 0


async def test_a_render_that_kills_its_replicas_fails_after_the_last_attempt(store: JobStore) -> None:
    request_id = await submit(store, renders=2)
    for _ in range(2):
        await store.claims.release(await claim_next(store), max_attempts=2)
    record = await store.requests.get(request_id)
    assert record.failure is not None
    assert record.failure.error_code == "ATTEMPTS_EXHAUSTED"
    assert record.renders[1].state is RenderState.CANCELED


async def test_a_lost_render_that_was_canceled_is_not_tried_again(store: JobStore) -> None:
    request_id = await submit(store)
    await claim_next(store, lease_s=-1)
    await store.requests.cancel(request_id)
    await store.claims.expire_leases(MODEL, max_attempts=3)
    assert (await store.requests.get(request_id)).state is RenderState.CANCELED


@pytest.mark.parametrize("sweep", ["expired", "released"])
async def test_what_is_lost_together_with_the_render_that_fails_its_request_is_not_tried_again(
    store: JobStore, sweep: str
) -> None:
    request_id = await submit(store, renders=2)
    await store.claims.release(await claim_next(store), max_attempts=3)
    claims = [await claim_next(store, lease_s=-1), await claim_next(store, lease_s=-1)]
    assert [claim.attempt for claim in claims] == [2, 1]
    if sweep == "expired":
        assert await store.claims.expire_leases(MODEL, max_attempts=2) == 2
    else:
        assert all([await store.claims.release(claim, max_attempts=2) for claim in claims])
    assert await states(store, request_id) == [RenderState.FAILED, RenderState.CANCELED]


async def test_a_request_that_has_ended_can_be_removed(store: JobStore) -> None:
    gone, stays = await submit(store, renders=2), await submit(store)
    await store.requests.cancel(gone)
    await store.requests.remove(gone)
    for call in (store.requests.get(gone), store.requests.remove(gone)):
        with pytest.raises(RequestNotFound, match=gone):
            await call
    assert await states(store, stays) == [RenderState.QUEUED]


async def test_a_request_that_has_not_ended_is_not_removed(store: JobStore) -> None:
    request_id = await submit(store, renders=3)
    first = await claim_next(store)
    await store.claims.succeed(first, output(first))
    await claim_next(store)
    with pytest.raises(RequestNotEnded) as refused:
        await store.requests.remove(request_id)
    assert refused.value.details["unfinished"] == [1, 2]
    assert await states(store, request_id) == [RenderState.SUCCEEDED, RenderState.PROCESSING, RenderState.QUEUED]


async def test_writers_in_many_connections_do_not_fail_each_other(store: JobStore, database_url: str) -> None:
    async with other_stores(database_url, 4) as others:
        ids = await asyncio.gather(*(submit(s, renders=2) for s in [store, *others] for _ in range(10)))
    assert len(await queued(store)) == 2 * len(set(ids)) == 100


async def test_a_database_that_does_not_answer_is_said_so(tmp_path: Path) -> None:
    broken = tmp_path / "broken.db"
    broken.write_bytes(b"this is no database" * 100)
    store = JobStore(f"sqlite:///{broken}")
    with pytest.raises(StoreUnavailable, match="did not answer"):
        await store.queue(MODEL).load()
    await store.close()


on_a_server = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
ends = pytest.mark.parametrize("end", [PostgresServer.stop, PostgresServer.kill], ids=["stopped", "killed"])


@on_a_server
@ends
async def test_what_a_server_that_is_away_was_asked_for_has_not_happened(
    store: JobStore, postgres: PostgresServer, end: Callable[[PostgresServer], None]
) -> None:
    request_id = await submit(store)
    claim = await claim_next(store)
    with postgres.away(end):
        for call in (store.requests.get(request_id), store.claims.renew(claim, 1, LEASE_S), submit(store)):
            with pytest.raises(StoreUnavailable, match="did not answer"):
                await call
    assert await queued(store) == []
    assert await store.claims.succeed(claim, output(claim))
    assert await states(store, request_id) == [RenderState.SUCCEEDED]


@on_a_server
@ends
async def test_nobody_is_refused_for_a_connection_from_before_the_server_was_started_again(
    store: JobStore, postgres: PostgresServer, end: Callable[[PostgresServer], None]
) -> None:
    ids = await asyncio.gather(*(submit(store) for _ in range(5)))
    await asyncio.gather(*(store.requests.get(request_id) for request_id in ids))
    with postgres.away(end):
        pass
    records = await asyncio.gather(*(store.requests.cancel(request_id) for request_id in ids))
    assert {record.state for record in records} == {RenderState.CANCELED}


async def test_a_canceled_writer_does_not_keep_the_database_locked(store: JobStore, database_url: str) -> None:
    request_id = await submit(store)
    claim = await claim_next(store)
    for delay_us in range(0, 3000, 20):
        beat = asyncio.create_task(store.claims.renew(claim, 1, LEASE_S))
        await asyncio.sleep(delay_us / 1e6)
        beat.cancel()
        await asyncio.gather(beat, return_exceptions=True)
    other = JobStore(database_url)
    async with asyncio.timeout(5):
        assert await other.claims.renew(claim, 2, LEASE_S) is False
        assert await store.claims.succeed(claim, output(claim))
    assert (await other.requests.get(request_id)).state is RenderState.SUCCEEDED
    await other.close()


async def test_closing_waits_for_a_transaction_whose_caller_is_gone(database_url: str) -> None:
    store = JobStore(database_url)
    writing = asyncio.create_task(store.leadership("a role").hold(60, 0))
    await asyncio.sleep(0)  # it begins
    writing.cancel()
    await store.close()
    with connect(database_url) as connection:
        assert connection.execute(select(leaders.c.role)).scalars().all() == ["a role"]


async def test_an_error_whose_words_no_database_takes_ends_its_render(store: JobStore) -> None:
    request_id = await submit(store)
    assert await store.claims.fail(await claim_next(store), RenderFailed("half \ud83d and \x00"))
    failure = (await store.requests.get(request_id)).failure
    assert failure is not None
    assert failure.error_message == "half ? and \ufffd"


async def test_a_spec_that_cannot_be_read_uses_up_its_attempts(store: JobStore, database_url: str) -> None:
    request_id = await submit(store)
    with connect(database_url) as connection:
        spec = connection.execute(text("SELECT spec FROM renders")).scalar_one()
        connection.execute(text("UPDATE renders SET spec = '{}'"))
    (render,) = await queued(store)
    with pytest.raises(ValidationError):
        await store.claims.claim(render.render_id, "replica", -1)
    await store.claims.expire_leases(MODEL, max_attempts=1)
    with connect(database_url) as connection:
        connection.execute(text("UPDATE renders SET spec = :spec"), {"spec": spec})
    assert await states(store, request_id) == [RenderState.FAILED]
