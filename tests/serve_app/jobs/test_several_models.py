"""Models share one job store and nothing of their queues: load, order, places, limits, leases, leaders, wake-ups."""

import asyncio
from contextlib import suppress

import pytest

from serve_app.errors import QueueFull
from serve_app.jobs.admission import Limits
from serve_app.jobs.coordination import dispatcher_of, listen
from serve_app.jobs.load import Amount
from serve_app.jobs.records import NewRequest
from serve_app.jobs.states import RenderState
from serve_app.jobs.store import JobStore
from tests.fixtures.specs import MODEL, make_spec
from tests.fixtures.store import NewDatabase, queued
from tests.serve_app.jobs.helpers import LEASE_S, claim_next, counted_totals, kept_totals, new_request, states, submit

OTHER = "lantern_1b"


def of_other(count: int = 1) -> NewRequest:
    """Return a request for the other model, with the same LoRAs."""
    specs = tuple(make_spec(model=OTHER, seed=index) for index in range(count))
    return new_request(model=OTHER, specs=specs, costs=(1.0,) * count)


async def test_each_queue_holds_its_own_models_renders(store: JobStore, database_url: str) -> None:
    await submit(store, renders=2)
    await store.requests.submit(of_other(3))
    pair = make_spec().pair_key
    for model, count in ((MODEL, 2), (OTHER, 3), ("unheard_of", 0)):
        queue = store.queue(model)
        load = await queue.load()
        assert load.queued == Amount(count, count)
        assert len(await queue.candidates(list(load.lines), [pair], window=10)) == count
        assert bool(await queue.oldest_waits_s()) == (count > 0)
    assert kept_totals(database_url) == counted_totals(database_url)


async def test_a_flood_on_one_model_is_not_ahead_of_a_render_of_another(store: JobStore) -> None:
    flood = await submit(store, renders=50)
    request_id = (await store.requests.submit(of_other())).request_id
    place = (await store.requests.standing(request_id)).place
    assert place is not None
    assert (place.ahead, place.load.queued) == (Amount(), Amount(1, 1))
    last = (await store.requests.standing(flood)).place
    assert last is not None
    assert last.load.queued == Amount(50, 50)


async def test_what_runs_counts_for_its_own_model(store: JobStore) -> None:
    await submit(store)
    await store.requests.submit(of_other())
    await claim_next(store)
    assert (await store.queue(MODEL).load()).running == Amount(1, 1)
    assert (await store.queue(OTHER).load()).running == Amount()
    assert await store.claims.running() == 1


async def test_the_limits_of_a_full_queue_leave_the_other_open(store: JobStore) -> None:
    limits = Limits(max_queued=2)
    await store.requests.submit(new_request(2), limits)
    full, other = await asyncio.gather(
        store.requests.submit(new_request(), limits),
        store.requests.submit(of_other(2), limits),
        return_exceptions=True,
    )
    assert isinstance(full, QueueFull)
    assert not isinstance(other, BaseException)


async def test_each_dispatcher_gives_back_its_own_models_claims(store: JobStore) -> None:
    own = await submit(store)
    other = (await store.requests.submit(of_other())).request_id
    for model in (MODEL, OTHER):
        oldest, *_ = await queued(store, model)
        await store.claims.claim(oldest.render_id, "replica", lease_s=-1)
    assert await store.claims.expire_leases(OTHER, max_attempts=3) == 1
    assert await states(store, own) == [RenderState.PROCESSING]
    assert await states(store, other) == [RenderState.QUEUED]


async def test_each_model_has_a_leader_that_tells_of_its_replicas(store: JobStore) -> None:
    assert await store.leadership(dispatcher_of(MODEL)).hold(LEASE_S, 3)
    assert await store.leadership(dispatcher_of(OTHER)).hold(LEASE_S, 2)
    assert (await store.queue(MODEL).load()).replicas == 3
    assert (await store.queue(OTHER).load()).replicas == 2


@pytest.mark.parametrize("renders_of", [MODEL, OTHER])
@pytest.mark.usefixtures("postgres")  # told here, so that it is no unit test
async def test_a_dispatcher_is_woken_by_its_own_models_renders(renders_of: str, new_database: NewDatabase) -> None:
    url = new_database("postgresql")
    store, heard = JobStore(url), asyncio.Event()
    listening = asyncio.create_task(listen(url, MODEL, heard))
    await asyncio.wait_for(heard.wait(), 10)  # it listens now
    heard.clear()
    await store.requests.submit(new_request() if renders_of == MODEL else of_other())
    with suppress(TimeoutError):
        await asyncio.wait_for(heard.wait(), 0.5)
    assert heard.is_set() == (renders_of == MODEL)
    listening.cancel()
    await store.close()
