"""The policy over a real store."""

import asyncio
import shutil
from pathlib import Path
from time import time
from uuid import uuid4

import pytest

from deployments.scheduling.chooser import Chooser
from deployments.scheduling.residency import FleetMemory
from serve_app.jobs.records import Claim, NewRequest
from serve_app.jobs.store import JobStore
from serve_app.settings import Settings
from serve_app.spec import Priority
from tests.fixtures.specs import MODEL, make_spec

LEASE_S = 30.0


@pytest.fixture
def fleet() -> FleetMemory:
    fleet = FleetMemory()
    fleet.saw({"r1": (), "r2": ()})
    return fleet


@pytest.fixture
def chooser(store: JobStore, fleet: FleetMemory) -> Chooser:
    return Chooser(store, MODEL, fleet, Settings(tenant_weights={"paying": 3.0}))


async def submit(
    store: JobStore, *pairs: str, tenant: str = "default", priority: Priority = Priority.NORMAL, cost_s: float = 10.0
) -> str:
    new = NewRequest(
        id=str(uuid4()),
        model=MODEL,
        created_at=time(),
        specs=tuple(make_spec(pair=pair) for pair in pairs),
        costs=(cost_s,) * len(pairs),
        tenant=tenant,
        priority=priority,
    )
    await store.requests.submit(new)
    return new.id


def key(pair: str) -> str:
    return make_spec(pair=pair).pair_key


async def claim(chooser: Chooser, replica: str = "r1") -> Claim:
    found = await chooser.claim_for(replica, LEASE_S)
    assert found is not None
    return found


async def test_where_nothing_waits_there_is_nothing_to_claim(chooser: Chooser) -> None:
    assert await chooser.claim_for("r1", LEASE_S) is None


async def test_a_replica_gets_the_pair_that_it_has_ready_before_older_renders(
    chooser: Chooser, store: JobStore, fleet: FleetMemory
) -> None:
    await submit(store, "a", "a", "b")
    fleet.learned("r1", [key("b")])
    assert (await claim(chooser, "r1")).spec.pair_key == key("b")
    assert (await claim(chooser, "r2")).spec.pair_key == key("a")


async def test_a_replica_may_have_any_number_of_pairs_ready(
    chooser: Chooser, store: JobStore, fleet: FleetMemory
) -> None:
    await submit(store, "a", "a", "b")
    fleet.learned("r1", [key("b"), *(f"pair{number}" for number in range(1000))])
    assert (await claim(chooser, "r1")).spec.pair_key == key("b")


async def test_higher_priority_goes_first_within_a_tenant(chooser: Chooser, store: JobStore) -> None:
    await submit(store, "a", priority=Priority.LOW)
    await submit(store, "a")
    urgent = await submit(store, "a", priority=Priority.HIGH)
    assert (await claim(chooser)).request_id == urgent


async def test_tenants_share_by_weight_whatever_their_priority_and_numbers(chooser: Chooser, store: JobStore) -> None:
    await submit(store, *("a" * 60), tenant="flood", priority=Priority.HIGH)
    await submit(store, *("b" * 60), tenant="paying", priority=Priority.LOW)
    tenants = [(await claim(chooser, "r2")).tenant for _ in range(40)]
    assert tenants.count("paying") == pytest.approx(30, abs=2)


async def test_a_tenant_pays_for_what_its_renders_really_took(chooser: Chooser, store: JobStore) -> None:
    await submit(store, *("a" * 30), tenant="slow")
    await submit(store, *("a" * 30), tenant="fast")
    tenants = []
    for _ in range(30):
        held = await claim(chooser)
        tenants.append(held.tenant)
        chooser.ended(held, actual_s=40.0 if held.tenant == "slow" else 10.0)
    assert tenants.count("fast") == pytest.approx(24, abs=2)


async def test_what_is_canceled_between_looking_and_claiming_is_passed_over(chooser: Chooser, store: JobStore) -> None:
    ids = [await submit(store, "a") for _ in range(5)]
    claims, _ = await asyncio.gather(chooser.claim_for("r1", LEASE_S), store.requests.cancel(ids[0]))
    assert claims is not None
    left = {(await claim(chooser)).request_id for _ in range(4 if claims.request_id == ids[0] else 3)}
    assert ids[4] in left


async def foreseen(chooser: Chooser, fleet: FleetMemory, replica: str) -> int | None:
    found = await chooser.foresee(replica, fleet.resident(replica))
    return None if found is None else found.render_id


async def test_what_is_foreseen_is_what_is_claimed_unless_the_queue_changes(
    chooser: Chooser, store: JobStore, fleet: FleetMemory
) -> None:
    await submit(store, *"abcab", tenant="one")
    await submit(store, *"cab", tenant="paying", priority=Priority.HIGH)
    fleet.learned("r1", [key("b")])
    for _ in range(8):
        expected = await foreseen(chooser, fleet, "r1")
        held = await claim(chooser)
        assert held.render_id == expected
        fleet.learned("r1", [held.spec.pair_key])
    assert await foreseen(chooser, fleet, "r1") is None


async def test_a_render_that_goes_first_is_foreseen_when_it_comes(
    chooser: Chooser, store: JobStore, fleet: FleetMemory
) -> None:
    await submit(store, "a")
    before = await foreseen(chooser, fleet, "r1")
    await submit(store, "a", priority=Priority.HIGH)
    assert await foreseen(chooser, fleet, "r1") not in (before, None)


async def test_each_replica_is_told_another_render_and_one_that_drains_none(
    chooser: Chooser, store: JobStore, fleet: FleetMemory
) -> None:
    await submit(store, "a", "b")
    first, second = await asyncio.gather(*(foreseen(chooser, fleet, replica) for replica in ("r1", "r2")))
    assert None not in (first, second)
    assert first != second
    assert await foreseen(chooser, fleet, "r1") == first
    fleet.saw({"r2": ()})  # r1 drains, or is dead
    assert await foreseen(chooser, fleet, "r1") is None
    assert await foreseen(chooser, fleet, "r2") == min(first or 0, second or 0)


async def test_what_is_foreseen_binds_nobody(chooser: Chooser, store: JobStore, fleet: FleetMemory) -> None:
    await submit(store, "a", "b")
    told = await foreseen(chooser, fleet, "r1")
    assert (await claim(chooser, "r2")).render_id == told  # it is the oldest, and r2 is free now
    assert await foreseen(chooser, fleet, "r1") not in (told, None)


async def order(store: JobStore, *, foreseeing: bool) -> list[tuple[str, int]]:
    """Return which renders two replicas claim, one after another, while a tenant comes and goes."""
    fleet = FleetMemory()
    fleet.saw({"r1": (), "r2": ()})
    chooser = Chooser(store, MODEL, fleet, Settings(tenant_weights={"paying": 3.0}))
    for tenant, pairs in (("one", "abcabc"), ("paying", "bcabca"), ("late", "cc")):
        await submit(store, *pairs, tenant=tenant)
    found = []
    for number in range(16):
        if foreseeing:
            await asyncio.gather(*(foreseen(chooser, fleet, name) for name in ("r1", "r2", "r1")))
        if number in (4, 9):
            await submit(store, "a", "a", tenant="late")
        replica = f"r{1 + number % 2}"
        held = await claim(chooser, replica)
        found.append((held.tenant, held.index))
        fleet.learned(replica, [held.spec.pair_key])
        chooser.ended(held, actual_s=5.0 + number)
    return found


async def test_the_order_is_the_same_whether_or_not_replicas_ask_what_comes(
    migrated_sqlite: Path, tmp_path: Path
) -> None:
    orders = []
    for foreseeing in (False, True):
        path = tmp_path / f"{foreseeing}.db"
        shutil.copyfile(migrated_sqlite, path)
        store = JobStore(f"sqlite:///{path}")
        orders.append(await order(store, foreseeing=foreseeing))
        await store.close()
    assert orders[0] == orders[1]
