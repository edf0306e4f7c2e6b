"""The job store on a real database: durability, claims, fencing, cancel."""

import asyncio
from pathlib import Path
from time import time
from uuid import uuid4

import pytest

from serve_app.errors import RenderFailed, RequestNotFound, StoreUnavailable
from serve_app.jobs.records import Claim, NewRequest, Output
from serve_app.jobs.spec import OutputFormat
from serve_app.jobs.states import RenderState
from serve_app.jobs.store import JobStore
from tests.fixtures.specs import make_spec

LEASE_S = 30.0


async def submit(store: JobStore, renders: int = 1, pair: str = "a") -> str:
    new = NewRequest(
        id=str(uuid4()),
        model="wan22_14b_t2v",
        created_at=time(),
        specs=tuple(make_spec(seed=index, pair=pair) for index in range(renders)),
    )
    await store.submit(new)
    return new.id


async def claim_next(store: JobStore, lease_s: float = LEASE_S) -> Claim:
    (oldest,) = await store.waiting(1)
    claim = await store.claim(oldest.render_id, "replica", lease_s)
    assert claim is not None
    return claim


def output(claim: Claim) -> Output:
    return Output(
        name=f"{claim.request_id}/{claim.index}-{claim.attempt}.mp4",
        format=OutputFormat.MP4,
        width=64,
        height=64,
        num_frames=5,
        fps=16,
        seed=claim.spec.seed,
        metadata={},
    )


async def states(store: JobStore, request_id: str) -> list[RenderState]:
    return [render.state for render in (await store.request(request_id)).renders]


async def test_a_submitted_request_outlives_the_process_that_took_it(store: JobStore, database_url: str) -> None:
    request_id = await submit(store, renders=3)
    await store.close()
    other = JobStore(database_url)
    record = await other.request(request_id)
    assert [render.spec for render in record.renders] == [make_spec(seed=seed) for seed in range(3)]
    assert record.state is RenderState.QUEUED
    await other.close()


async def test_an_unknown_request_is_named(store: JobStore) -> None:
    with pytest.raises(RequestNotFound, match="no-such-id"):
        await store.request("no-such-id")
    with pytest.raises(RequestNotFound):
        await store.cancel("no-such-id")


async def test_renders_wait_in_order_of_arrival(store: JobStore) -> None:
    first, second = await submit(store, 2), await submit(store, 2, pair="b")
    waiting = await store.waiting(3)
    assert [w.render_id for w in waiting] == sorted(w.render_id for w in waiting)
    assert len(waiting) == 3
    assert waiting[0].pair_key != waiting[2].pair_key
    assert await store.position(await store.request(first)) == 0
    assert await store.position(await store.request(second)) == 2


async def test_of_many_claims_for_one_render_one_wins(store: JobStore) -> None:
    await submit(store)
    (waiting,) = await store.waiting(10)
    claims = await asyncio.gather(*(store.claim(waiting.render_id, f"replica-{n}", LEASE_S) for n in range(20)))
    assert sum(claim is not None for claim in claims) == 1
    assert await store.waiting(10) == []


async def test_a_request_succeeds_when_all_its_renders_do(store: JobStore) -> None:
    request_id = await submit(store, renders=2)
    one, two = await claim_next(store), await claim_next(store)
    assert await store.succeed(two, output(two))
    record = await store.request(request_id)
    assert (record.state, record.progress, record.finished_at) == (RenderState.PROCESSING, 0.5, None)
    assert await store.succeed(one, output(one))
    record = await store.request(request_id)
    assert (record.state, record.progress) == (RenderState.SUCCEEDED, 1.0)
    assert record.started_at is not None
    assert record.finished_at is not None
    assert record.created_at <= record.started_at <= record.finished_at
    assert [render.output for render in record.renders] == [output(one), output(two)]


async def test_progress_counts_steps_of_running_renders(store: JobStore) -> None:
    request_id = await submit(store, renders=2)
    claim = await claim_next(store)
    assert await store.renew(claim, steps_done=3, lease_s=LEASE_S) is False
    assert (await store.request(request_id)).progress == 3 / 8


async def test_the_first_failure_fails_the_request_and_cancels_the_rest(store: JobStore) -> None:
    request_id = await submit(store, renders=3)
    failing, running = await claim_next(store), await claim_next(store)
    assert await store.fail(failing, RenderFailed("the fox ran away"))
    record = await store.request(request_id)
    assert record.state is RenderState.FAILED
    assert record.finished_at is not None
    assert record.failure is not None
    assert (record.failure.error_code, record.failure.error_message) == ("RENDER_FAILED", "the fox ran away")
    assert await states(store, request_id) == [
        RenderState.FAILED,
        RenderState.PROCESSING,
        RenderState.CANCELED,
    ]
    assert await store.renew(running, 1, LEASE_S) is True
    assert await store.cancel_claim(running)
    assert await states(store, request_id) == [RenderState.FAILED, RenderState.CANCELED, RenderState.CANCELED]


async def test_cancel_ends_what_is_queued_and_marks_what_runs(store: JobStore) -> None:
    request_id = await submit(store, renders=2)
    claim = await claim_next(store)
    for _ in range(2):  # idempotent
        record = await store.cancel(request_id)
        assert [r.state for r in record.renders] == [RenderState.PROCESSING, RenderState.CANCELED]
    assert await store.renew(claim, 1, LEASE_S) is True
    assert await store.cancel_claim(claim)
    assert (await store.request(request_id)).state is RenderState.CANCELED


async def test_cancel_leaves_a_finished_request_as_it_is(store: JobStore) -> None:
    request_id = await submit(store)
    claim = await claim_next(store)
    await store.succeed(claim, output(claim))
    assert (await store.cancel(request_id)).state is RenderState.SUCCEEDED


async def test_an_expired_lease_gives_the_render_back_and_fences_its_holder_off(store: JobStore) -> None:
    request_id = await submit(store)
    zombie = await claim_next(store, lease_s=-1)
    assert await store.expire_leases(max_attempts=3) == 1
    assert await states(store, request_id) == [RenderState.QUEUED]
    newer = await claim_next(store)
    assert (newer.attempt, zombie.attempt) == (2, 1)
    assert await store.renew(zombie, 1, LEASE_S) is None
    assert not await store.succeed(zombie, output(zombie))
    assert not await store.fail(zombie, RenderFailed("late"))
    assert not await store.cancel_claim(zombie)
    await store.release(zombie, max_attempts=3)
    assert await states(store, request_id) == [RenderState.PROCESSING]
    assert await store.succeed(newer, output(newer))
    assert (await store.request(request_id)).renders[0].output == output(newer)


async def test_a_live_lease_is_left_alone(store: JobStore) -> None:
    await submit(store)
    await claim_next(store)
    assert await store.expire_leases(max_attempts=3) == 0


async def test_a_render_that_kills_its_replicas_fails_after_the_last_attempt(store: JobStore) -> None:
    request_id = await submit(store, renders=2)
    for _ in range(2):
        await store.release(await claim_next(store), max_attempts=2)
    record = await store.request(request_id)
    assert record.failure is not None
    assert record.failure.error_code == "ATTEMPTS_EXHAUSTED"
    assert record.renders[1].state is RenderState.CANCELED


async def test_a_lost_render_that_was_canceled_is_not_tried_again(store: JobStore) -> None:
    request_id = await submit(store)
    await claim_next(store, lease_s=-1)
    await store.cancel(request_id)
    await store.expire_leases(max_attempts=3)
    assert (await store.request(request_id)).state is RenderState.CANCELED


async def test_writers_in_many_connections_do_not_fail_each_other(store: JobStore, database_url: str) -> None:
    others = [JobStore(database_url) for _ in range(4)]
    ids = await asyncio.gather(*(submit(s, renders=2) for s in [store, *others] for _ in range(10)))
    assert len(await store.waiting(1000)) == 2 * len(set(ids)) == 100
    for other in others:
        await other.close()


async def test_a_database_that_does_not_answer_is_said_so(tmp_path: Path) -> None:
    broken = tmp_path / "broken.db"
    broken.write_bytes(b"this is no database" * 100)
    store = JobStore(f"sqlite:///{broken}")
    with pytest.raises(StoreUnavailable, match="did not answer"):
        await store.waiting(1)
    await store.close()


async def test_a_canceled_writer_does_not_keep_the_database_locked(store: JobStore, database_url: str) -> None:
    request_id = await submit(store)
    claim = await claim_next(store)
    for delay_us in range(0, 3000, 20):
        beat = asyncio.create_task(store.renew(claim, 1, LEASE_S))
        await asyncio.sleep(delay_us / 1e6)
        beat.cancel()
        await asyncio.gather(beat, return_exceptions=True)
    other = JobStore(database_url)
    async with asyncio.timeout(5):
        assert await other.renew(claim, 2, LEASE_S) is False
        assert await store.succeed(claim, output(claim))
    assert (await other.request(request_id)).state is RenderState.SUCCEEDED
    await other.close()
