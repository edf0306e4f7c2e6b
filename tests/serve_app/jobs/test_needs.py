"""What renders needed of a GPU's memory is remembered: the most of each size."""

from serve_app.costs import CostKey, MeasuredCost
from serve_app.jobs.costs import Measurement
from serve_app.jobs.needs import MeasuredNeed
from serve_app.jobs.store import JobStore
from serve_app.needs import NeedKey
from serve_app.spec import Recipe, Speed
from tests.fixtures.specs import make_spec
from tests.serve_app.jobs.helpers import claim_next, output, submit

SMALL = NeedKey.of_size(832, 480, 41, Speed.EXACT)
LARGE = NeedKey.of_size(1024, 1024, 41, Speed.FAST)
_COST_KEY = CostKey(Recipe.REFERENCE, guided=True, size_class=100)


async def _measure(store: JobStore, key: NeedKey, size: int, deployment: str = "wan on a GPU") -> None:
    await submit(store)
    claim = await claim_next(store)
    measured = Measurement(deployment, _COST_KEY, MeasuredCost(1.0, 1.0), MeasuredNeed(key, size))
    assert await store.claims.succeed(claim, output(claim), measured)


async def test_the_most_of_each_size_and_deployment_is_kept(store: JobStore) -> None:
    assert await store.needs("wan on a GPU") == {}
    for size in (12 * 2**30, 13 * 2**30, 11 * 2**30):
        await _measure(store, LARGE, size)
    await _measure(store, SMALL, 5 * 2**30)
    await _measure(store, SMALL, 6 * 2**30, deployment="another")
    assert await store.needs("wan on a GPU") == {LARGE: 13 * 2**30, SMALL: 5 * 2**30}
    assert await store.needs("another") == {SMALL: 6 * 2**30}


def test_sizes_that_are_nearly_the_same_share_a_key() -> None:
    spec = make_spec(width=832, height=480, num_frames=41)
    assert NeedKey.of(spec) == SMALL
    assert NeedKey.of(spec.model_copy(update={"width": 824})) == SMALL
    assert NeedKey.of(spec.model_copy(update={"num_frames": 81})) != SMALL
