"""What renders have cost is remembered, and old measurements fade."""

import pytest

from serve_app.costs import CostKey, MeasuredCost
from serve_app.jobs.costs import Measurement
from serve_app.jobs.store import JobStore
from serve_app.models.card import load_card
from serve_app.spec import Recipe
from tests.fixtures.specs import make_spec
from tests.serve_app.jobs.helpers import claim_next, output, submit

CARD = load_card("wan22_14b_t2v")
KEY = CostKey(Recipe.REFERENCE, guided=True, size_class=100)


async def measure(store: JobStore, *costs: MeasuredCost, deployment: str = "wan on a GPU", key: CostKey = KEY) -> None:
    for cost in costs:
        await submit(store)
        claim = await claim_next(store)
        assert await store.claims.succeed(claim, output(claim), Measurement(deployment, key, cost))


async def test_before_anything_was_measured_nothing_is_known(store: JobStore) -> None:
    await submit(store)
    claim = await claim_next(store)
    await store.claims.succeed(claim, output(claim))
    assert await store.costs("wan on a GPU") == {}


async def test_the_first_measurements_are_averaged(store: JobStore) -> None:
    await measure(store, MeasuredCost(1.0, 10.0), MeasuredCost(2.0, 20.0), MeasuredCost(6.0, 0.0))
    known = (await store.costs("wan on a GPU"))[KEY]
    assert [known.step_s, known.other_s] == pytest.approx([3.0, 10.0])


async def test_a_change_of_hardware_is_noticed(store: JobStore) -> None:
    await measure(store, *[MeasuredCost(1.0, 0.0)] * 12)
    await measure(store, MeasuredCost(11.0, 0.0))
    assert (await store.costs("wan on a GPU"))[KEY].step_s == pytest.approx(2.0)
    await measure(store, MeasuredCost(12.0, 0.0))
    assert (await store.costs("wan on a GPU"))[KEY].step_s == pytest.approx(3.0)


async def test_deployments_and_keys_are_kept_apart(store: JobStore) -> None:
    other = CostKey(Recipe.PREVIEW, guided=False, size_class=-3)
    await measure(store, MeasuredCost(1.0, 2.0))
    await measure(store, MeasuredCost(3.0, 4.0), key=other)
    await measure(store, MeasuredCost(5.0, 6.0), deployment="wan on a CPU")
    assert await store.costs("wan on a GPU") == {KEY: MeasuredCost(1.0, 2.0), other: MeasuredCost(3.0, 4.0)}
    assert await store.costs("wan on a CPU") == {KEY: MeasuredCost(5.0, 6.0)}


async def test_what_does_not_count_teaches_nothing(store: JobStore) -> None:
    await submit(store)
    late = await claim_next(store)
    await store.claims.release(late, max_attempts=2)
    assert not await store.claims.succeed(late, output(late), Measurement("wan on a GPU", KEY, MeasuredCost(1.0, 1.0)))
    assert await store.costs("wan on a GPU") == {}


def test_renders_of_nearly_one_size_share_their_measurements() -> None:
    spec = make_spec(width=832, height=480, num_frames=41)
    assert CARD.token_count(width=832, height=480, num_frames=41) == 11 * 52 * 30
    assert CostKey.of(spec, CARD) == CostKey.of(make_spec(width=480, height=832, num_frames=41), CARD)
    assert CostKey.of(spec, CARD) != CostKey.of(make_spec(width=832, height=480, num_frames=45), CARD)
    assert CostKey.of(spec, CARD).tokens == pytest.approx(11 * 52 * 30, rel=0.025)


def test_guidance_above_one_costs_two_passes() -> None:
    assert [CostKey.of(make_spec(guidance_scale=scale), CARD).passes for scale in (0.0, 1.0, 1.001, 4.0)] == [
        1,
        1,
        2,
        2,
    ]
