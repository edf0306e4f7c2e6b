"""Of all candidates for a role, one has it."""

import asyncio

from serve_app.jobs.coordination import dispatcher_of
from serve_app.jobs.store import JobStore
from tests.fixtures.specs import MODEL
from tests.serve_app.jobs.helpers import other_stores

ROLE = dispatcher_of(MODEL)


async def test_of_many_candidates_one_holds_the_role_and_keeps_it(store: JobStore, database_url: str) -> None:
    async with other_stores(database_url, 3) as others:
        candidates = [one.leadership(ROLE) for one in [store, store, *others]]
        first = await asyncio.gather(*(candidate.hold(60, 1) for candidate in candidates))
        assert sum(first) == 1
        again = await asyncio.gather(*(candidate.hold(60, 1) for candidate in candidates))
    assert again == first


async def test_a_lease_that_has_run_out_is_taken_over_for_good(store: JobStore) -> None:
    old, new = store.leadership(ROLE), store.leadership(ROLE)
    assert await old.hold(60, 1)
    assert not await new.hold(60, 1)
    assert await old.hold(-1, 1)
    assert not await new.is_held()
    assert await new.hold(60, 1)
    assert not await old.hold(60, 1)
    await old.resign()  # of what it no longer has
    assert await new.is_held()


async def test_a_holder_whose_lease_ran_out_unnoticed_continues(store: JobStore) -> None:
    leadership = store.leadership(ROLE)
    assert await leadership.hold(-1, 1)
    assert await leadership.hold(60, 1)


async def test_who_resigns_makes_room_at_once(store: JobStore) -> None:
    old, new = store.leadership(ROLE), store.leadership(ROLE)
    assert await old.hold(60, 1)
    assert await new.is_held()
    await old.resign()
    assert not await new.is_held()
    assert await new.hold(60, 1)


async def test_roles_are_held_apart(store: JobStore) -> None:
    assert await store.leadership(ROLE).hold(60, 1)
    assert await store.leadership("sweeper").hold(60, 1)


async def test_the_load_knows_the_replicas_that_the_holder_told_of_last(store: JobStore) -> None:
    assert (await store.queue(MODEL).load()).replicas == 0
    leadership = store.leadership(ROLE)
    for replicas in (3, 5):
        await leadership.hold(60, replicas)
        assert (await store.queue(MODEL).load()).replicas == replicas
    assert not await store.leadership(ROLE).hold(60, 100)
    assert (await store.queue(MODEL).load()).capacity == 5
