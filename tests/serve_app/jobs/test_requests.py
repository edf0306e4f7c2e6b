"""How requests enter: once for each key, and only while there is room."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from sqlalchemy import text

from serve_app.errors import AdmissionError, IdempotencyConflict, QueueFull, ServiceError, TenantQueueFull, WaitTooLong
from serve_app.jobs.admission import Limits
from serve_app.jobs.coordination import dispatcher_of
from serve_app.jobs.load import Amount
from serve_app.jobs.records import Accepted, Idempotency, NewRequest
from serve_app.jobs.requests import NO_LIMITS
from serve_app.jobs.store import JobStore
from serve_app.spec import Fit, InputImage
from tests.fixtures.specs import MODEL
from tests.fixtures.store import connect, queued
from tests.serve_app.jobs.helpers import claim_next, counted_totals, kept_totals, new_request, other_stores, output

KEY = Idempotency(key="once", digest="digest")
OTHER_BODY = Idempotency(key="once", digest="another")
Outcome = Accepted | BaseException


async def submit_together(store: JobStore, requests: Sequence[NewRequest], limits: Limits = NO_LIMITS) -> list[Outcome]:
    """Submit all in one transaction: those after the first are collected while it runs, and it is one too many."""
    first = asyncio.ensure_future(store.requests.submit(new_request(tenant="first")))
    await asyncio.sleep(0)
    outcomes = await asyncio.gather(
        *(store.requests.submit(request, limits) for request in requests), return_exceptions=True
    )
    await first
    return outcomes


def kinds(outcomes: Sequence[Outcome]) -> list[type[Outcome]]:
    return [type(outcome) for outcome in outcomes]


async def test_a_request_is_accepted_as_it_came(store: JobStore) -> None:
    new = new_request()
    assert await store.requests.submit(new) == Accepted(request_id=new.id, created_at=new.created_at)


async def test_the_image_of_a_render_is_stored_with_it_and_named_once_in_its_request(store: JobStore) -> None:
    images = [InputImage(sha256="a" * 64, fit=Fit.PAD), None, InputImage(sha256="a" * 64)]
    new = new_request(3)
    new = replace(
        new,
        specs=tuple(s.model_copy(update={"image": image}) for s, image in zip(new.specs, images, strict=True)),
    )
    await store.requests.submit(new)
    record = await store.requests.get(new.id)
    assert [render.spec.image for render in record.renders] == images
    assert record.input_names == [f"{new.id}/inputs/{'a' * 64}"]


async def test_a_request_that_comes_again_is_the_one_it_was(store: JobStore) -> None:
    first, again = new_request(idempotency=KEY), new_request(2, idempotency=KEY)
    assert not (await store.requests.submit(first)).replayed
    assert await store.requests.submit(again) == Accepted(
        request_id=first.id, created_at=first.created_at, replayed=True
    )
    assert await store.requests.known("default", KEY) == await store.requests.submit(again)
    assert len(await queued(store)) == 1


async def test_a_key_with_another_body_is_a_conflict_that_names_the_request(store: JobStore) -> None:
    first = new_request(idempotency=KEY)
    await store.requests.submit(first)
    with pytest.raises(IdempotencyConflict, match=first.id):
        await store.requests.submit(new_request(idempotency=OTHER_BODY))
    with pytest.raises(IdempotencyConflict, match="once"):
        await store.requests.known("default", OTHER_BODY)
    assert len(await queued(store)) == 1


async def test_a_key_stands_for_its_request_after_its_end_until_it_is_removed(store: JobStore) -> None:
    first = new_request(idempotency=KEY)
    await store.requests.submit(first)
    await store.requests.cancel(first.id)
    assert (await store.requests.submit(new_request(idempotency=KEY))).request_id == first.id
    await store.requests.remove(first.id)
    assert await store.requests.known("default", KEY) is None
    assert not (await store.requests.submit(new_request(idempotency=OTHER_BODY))).replayed


async def test_every_tenant_has_keys_of_its_own(store: JobStore) -> None:
    mine, theirs = new_request(tenant="me", idempotency=KEY), new_request(tenant="they", idempotency=OTHER_BODY)
    assert [(await store.requests.submit(new)).request_id for new in (mine, theirs)] == [mine.id, theirs.id]
    assert await store.requests.known("nobody", KEY) is None


async def test_a_key_that_many_processes_bring_at_once_is_one_request(store: JobStore, database_url: str) -> None:
    async with other_stores(database_url, 5) as others:
        accepted = await asyncio.gather(
            *(one.requests.submit(new_request(2, idempotency=KEY)) for one in [store, *others] for _ in range(5))
        )
    assert len({one.request_id for one in accepted}) == 1
    assert sum(not one.replayed for one in accepted) == 1
    assert len(await queued(store)) == 2
    assert kept_totals(database_url) == counted_totals(database_url)


async def test_keys_that_many_processes_bring_in_any_order_stand_for_one_request_each(
    store: JobStore, database_url: str
) -> None:
    keys = [Idempotency(key=str(n), digest="digest") for n in range(8)]
    async with other_stores(database_url, 3) as others:
        accepted = await asyncio.gather(
            *(
                one.requests.submit(new_request(tenant=key.key, idempotency=key))
                for turn, one in enumerate([store, *others])
                for key in (keys if turn % 2 else reversed(keys))
            )
        )
    assert len({one.request_id for one in accepted}) == len(keys) == len(await queued(store))


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_processes_that_submit_for_the_same_tenants_never_wait_for_each_other_in_a_circle(
    store: JobStore, database_url: str
) -> None:
    chance = random.Random(0)
    keys = [(tenant, str(number)) for number in range(50) for tenant in "abcdef"]
    async with other_stores(database_url, 3) as others:
        for _ in range(10):
            await asyncio.gather(
                *(
                    one.requests.submit(new_request(tenant=tenant, idempotency=Idempotency(key=key, digest="digest")))
                    for one in (store, *others)
                    for tenant, key in chance.sample(keys, 15)
                )
            )
    await store.close()  # a server counts what a connection did once that has gone
    with connect(database_url) as connection:
        of_this = text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        assert connection.execute(of_this).scalar_one() == 0


async def test_a_key_that_stands_twice_in_one_transaction_is_one_request(store: JobStore) -> None:
    requests = [new_request(idempotency=key) for key in (KEY, KEY, OTHER_BODY, None)]
    once, again, other, free = await submit_together(store, requests)
    assert once == Accepted(request_id=requests[0].id, created_at=requests[0].created_at)
    assert again == Accepted(request_id=requests[0].id, created_at=requests[0].created_at, replayed=True)
    assert isinstance(other, IdempotencyConflict)
    assert isinstance(free, Accepted)
    assert len(await queued(store)) == 3


async def test_the_queue_takes_so_many_renders_and_no_more(store: JobStore) -> None:
    limits = Limits(max_queued=3)
    await store.requests.submit(new_request(2, tenant="a"), limits)
    with pytest.raises(QueueFull) as refused:
        await store.requests.submit(new_request(2, tenant="b"), limits)
    assert refused.value.details == {"queued": 2, "limit": 3, "limit_name": "max_queued", "retry_after_s": 1}
    await store.requests.submit(new_request(1, tenant="b"), limits)
    assert (await store.queue(MODEL).load()).queued == Amount(3, 3)


async def test_many_processes_together_let_in_no_more_than_one(store: JobStore, database_url: str) -> None:
    limits = Limits(max_queued=30, max_queued_per_tenant=20)
    async with other_stores(database_url, 4) as stores:
        asked = [each.requests.submit(new_request(tenant=tenant), limits) for each in stores for tenant in "ab" * 10]
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, AdmissionError)]
    assert len(outcomes) - len(refused) == len(await queued(store)) == 30


async def test_what_runs_does_not_fill_the_queue(store: JobStore) -> None:
    limits = Limits(max_queued=1)
    await store.requests.submit(new_request(), limits)
    with pytest.raises(QueueFull):
        await store.requests.submit(new_request(), limits)
    claim = await claim_next(store)
    await store.requests.submit(new_request(), limits)
    await store.claims.succeed(claim, output(claim))
    with pytest.raises(QueueFull):
        await store.requests.submit(new_request(), limits)


async def test_a_tenant_has_so_much_room_and_leaves_the_others_theirs(store: JobStore) -> None:
    limits = Limits(max_queued_per_tenant=2)
    await store.requests.submit(new_request(2, tenant="greedy"), limits)
    with pytest.raises(TenantQueueFull):
        await store.requests.submit(new_request(1, tenant="greedy"), limits)
    await store.requests.submit(new_request(2, tenant="modest"), limits)


async def test_nobody_is_let_in_to_wait_too_long(store: JobStore) -> None:
    limits = Limits(max_wait_s=100)
    await store.requests.submit(new_request(costs=[90, 60]), limits)
    with pytest.raises(WaitTooLong) as refused:
        await store.requests.submit(new_request(), limits)
    assert refused.value.details == {"expected_wait_s": 150.0, "limit_s": 100, "retry_after_s": 50}
    await store.leadership(dispatcher_of(MODEL)).hold(60, replicas=2)
    await store.requests.submit(new_request(), limits)


async def test_a_request_that_is_known_is_answered_though_the_queue_is_full(store: JobStore) -> None:
    limits = Limits(max_queued=1)
    first = new_request(idempotency=KEY)
    await store.requests.submit(first, limits)
    assert (await store.requests.submit(new_request(idempotency=KEY), limits)).request_id == first.id


async def test_one_that_is_refused_leaves_the_others_of_its_transaction(store: JobStore, database_url: str) -> None:
    requests = [new_request(count, tenant="a") for count in (2, 5, 1, 2)]
    outcomes = await submit_together(store, requests, Limits(max_queued=5))
    assert kinds(outcomes) == [Accepted, QueueFull, Accepted, QueueFull]
    assert [isinstance(outcome, ServiceError) for outcome in outcomes] == [False, True, False, True]
    assert sorted(render.tenant for render in await queued(store)) == ["a", "a", "a", "first"]
    assert kept_totals(database_url) == counted_totals(database_url)
