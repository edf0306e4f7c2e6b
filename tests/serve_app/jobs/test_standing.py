"""Where requests stand, asked one by one and together."""

import asyncio
from uuid import uuid4

import pytest

from serve_app.errors import RequestNotFound
from serve_app.jobs.load import Amount
from serve_app.jobs.records import Line
from serve_app.jobs.store import JobStore
from serve_app.spec import Priority
from tests.serve_app.jobs.helpers import claim_next, new_request, output, submit


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
