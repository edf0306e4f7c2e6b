"""The Dispatcher in this process: real Generators behind a small handle, over a real job store."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest
import pytest_asyncio
from sqlalchemy import update

from deployments import dispatcher as dispatching
from deployments.dispatcher import Dispatcher
from serve_app.jobs.coordination import dispatcher_of
from serve_app.jobs.endings import RenderEnd
from serve_app.jobs.load import Load
from serve_app.jobs.records import NewRequest
from serve_app.jobs.states import RenderState
from serve_app.jobs.tables import leaders
from serve_app.observers import Observer, Observers
from tests.deployments.conftest import Bench, store_away, until
from tests.deployments.local_serve import LocalHandle
from tests.deployments.small_pipeline import SLOW, waits_after
from tests.fixtures.specs import MODEL
from tests.fixtures.store import connect

Dispatch = Callable[[LocalHandle], Dispatcher]


class Gauges(Observer):
    """The queue as it was seen last, and the renders that the Dispatcher ended."""

    def __init__(self) -> None:
        self.seen: list[Load] = []
        self.ends: list[RenderEnd] = []

    def load(self, _model: str, load: Load) -> None:
        self.seen.append(load)

    def finished(self, ends: Sequence[RenderEnd]) -> None:
        self.ends += ends


@pytest.fixture
def gauges() -> Gauges:
    return Gauges()


@pytest_asyncio.fixture
async def dispatch(bench: Bench, gauges: Gauges, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Dispatch]:
    """Start Dispatchers, and close them."""
    monkeypatch.setattr(dispatching, "_HANDOVER_S", 0.02)
    monkeypatch.setattr(dispatching, "_AFTER_LOSS_S", 0.02)
    started: list[Dispatcher] = []

    def start(handle: LocalHandle) -> Dispatcher:
        started.append(Dispatcher(bench.plan, handle, observers=Observers(gauges)))
        return started[-1]

    yield start
    for replica in bench.replicas:
        replica.pipeline.go.set()
    for dispatcher in started:
        if (closing := dispatcher.__del__()) is not None:
            await closing


def replicas(bench: Bench, count: int) -> LocalHandle:
    """Return a handle to new Generators r0, r1, ..."""
    return LocalHandle({f"r{number}": bench.replica().generator for number in range(count)})


def state(bench: Bench, request: NewRequest) -> Callable[[], Awaitable[RenderState]]:
    """Return how far a request is."""

    async def now() -> RenderState:
        return (await bench.store.requests.get(request.id)).state

    return now


async def reaches(bench: Bench, request: NewRequest, wanted: RenderState) -> None:
    """Wait until a request has that state."""

    async def reached() -> bool:
        return await state(bench, request)() is wanted

    await until(reached)


async def test_what_is_queued_is_rendered(bench: Bench, dispatch: Dispatch) -> None:
    dispatch(replicas(bench, 2))
    requests = [await bench.submit(bench.spec(), bench.spec(seed=1)) for _ in range(3)]
    for request in requests:
        await reaches(bench, request, RenderState.SUCCEEDED)
    assert len(bench.files()) == 6


async def test_a_wake_up_is_faster_than_a_sweep(bench: Bench, dispatch: Dispatch) -> None:
    bench.tune(sweep_s=60.0, dispatcher_lease_s=180.0)
    dispatcher = dispatch(replicas(bench, 1))
    await asyncio.sleep(0.1)  # it has looked, and sleeps
    request = await bench.submit(bench.spec())
    await dispatcher.queued()
    await reaches(bench, request, RenderState.SUCCEEDED)


async def test_a_render_goes_where_its_pair_is_ready(bench: Bench, dispatch: Dispatch) -> None:
    dispatch(replicas(bench, 2))
    first, second = [await bench.submit(bench.spec(pair, prompt=waits_after(1))) for pair in ("mine", "yours")]
    pipelines = [replica.pipeline for replica in bench.replicas]
    await until(lambda: all(pipeline.waiting.is_set() for pipeline in pipelines))
    for pipeline in pipelines:
        pipeline.go.set()
    for request in (first, second):
        await reaches(bench, request, RenderState.SUCCEEDED)
    owners = {spec.pair_key: pipeline for pipeline in pipelines for spec in pipeline.rendered}
    assert len(owners) == 2
    mixed = await bench.submit(*(bench.spec(pair, seed=seed) for seed, pair in enumerate(["yours", "mine"] * 4)))
    await reaches(bench, mixed, RenderState.SUCCEEDED)
    for pair_key, owner in owners.items():
        rendered = [spec.pair_key for spec in owner.rendered]
        # A replica that is done before the other one helps it out: no GPU idles while renders wait.
        assert rendered == sorted(rendered, key=lambda rendered_pair: rendered_pair != pair_key)


async def test_no_more_slots_are_open_than_renders_wait(bench: Bench, dispatch: Dispatch) -> None:
    handle = replicas(bench, 1)
    dispatch(handle)
    running = await bench.submit(bench.spec(prompt=waits_after(1)))
    await until(bench.replicas[0].pipeline.waiting.is_set)
    await asyncio.sleep(0.15)
    assert handle.waiting == 0
    await bench.submit(bench.spec())
    await until(lambda: handle.waiting == 1)
    bench.replicas[0].pipeline.go.set()
    await reaches(bench, running, RenderState.SUCCEEDED)


async def test_a_busy_generator_is_told_what_it_gets_next(bench: Bench, dispatch: Dispatch) -> None:
    dispatcher = dispatch(replicas(bench, 1))
    await bench.submit(bench.spec(prompt=waits_after(1)))
    pipeline = bench.replicas[0].pipeline
    await until(pipeline.waiting.is_set)
    assert await dispatcher.foresee("r0", ()) is None
    following, _ = await bench.submit(bench.spec("mine")), await bench.submit(bench.spec("yours"))
    coming = await dispatcher.foresee("r0", ())
    assert coming is not None
    assert coming.spec == following.specs[0]
    pipeline.go.set()
    await reaches(bench, following, RenderState.SUCCEEDED)


async def test_a_cancel_reaches_a_render_that_runs(bench: Bench, dispatch: Dispatch) -> None:
    bench.tune(heartbeat_s=20.0, lease_s=60.0)
    dispatcher = dispatch(replicas(bench, 1))
    request = await bench.submit(bench.spec(prompt=SLOW, sample_steps=3000))
    await until(lambda: "step 2" in bench.replicas[0].heard.signals)
    await bench.store.requests.cancel(request.id)
    await dispatcher.canceled(request.id)
    await reaches(bench, request, RenderState.CANCELED)
    following = await bench.submit(bench.spec())
    await reaches(bench, following, RenderState.SUCCEEDED)


async def test_a_render_that_is_canceled_before_it_is_claimed_never_runs(bench: Bench, dispatch: Dispatch) -> None:
    canceled, wanted = await bench.submit(bench.spec()), await bench.submit(bench.spec(seed=7))
    await bench.store.requests.cancel(canceled.id)
    dispatch(replicas(bench, 1))
    await reaches(bench, wanted, RenderState.SUCCEEDED)
    assert [spec.seed for spec in bench.replicas[0].pipeline.rendered] == [7]


async def test_a_render_that_is_lost_with_its_replica_is_made_by_another_attempt(
    bench: Bench, dispatch: Dispatch
) -> None:
    handle = replicas(bench, 2)
    handle.lost = {"r0", "r1"}
    dispatch(handle)
    request = await bench.submit(bench.spec())
    await reaches(bench, request, RenderState.SUCCEEDED)
    (render,) = (await bench.store.requests.get(request.id)).renders
    assert render.attempt in (2, 3)


async def test_a_lease_that_ran_out_is_given_back(bench: Bench, dispatch: Dispatch) -> None:
    claim = await bench.claim(bench.spec(), lease_s=0.01)  # its holder is dead
    dispatch(replicas(bench, 1))

    async def done() -> bool:
        return (await bench.render(claim)).state is RenderState.SUCCEEDED

    await until(done)
    assert (await bench.render(claim)).attempt == 2


async def test_only_one_dispatches_and_the_next_takes_over_where_it_closes(bench: Bench, dispatch: Dispatch) -> None:
    bench.tune(dispatcher_lease_s=60.0)  # nobody waits for its end
    first_handle, second_handle = replicas(bench, 1), replicas(bench, 1)
    first = dispatch(first_handle)
    await until(bench.store.leadership(dispatcher_of(MODEL)).is_held)
    dispatch(second_handle)
    await reaches(bench, await bench.submit(bench.spec()), RenderState.SUCCEEDED)
    ours, theirs = bench.replicas
    assert (len(ours.pipeline.rendered), len(theirs.pipeline.rendered)) == (1, 0)
    await first.close()
    await reaches(bench, await bench.submit(bench.spec()), RenderState.SUCCEEDED)
    assert (len(ours.pipeline.rendered), len(theirs.pipeline.rendered)) == (1, 1)


async def test_a_slot_that_wins_a_replica_after_the_lead_is_lost_claims_nothing(
    bench: Bench, dispatch: Dispatch
) -> None:
    bench.tune(dispatcher_lease_s=0.3)
    handle = replicas(bench, 1)
    dispatch(handle)
    running, queued = await bench.submit(bench.spec(prompt=waits_after(1))), await bench.submit(bench.spec())
    pipeline = bench.replicas[0].pipeline
    await until(pipeline.waiting.is_set)
    await until(lambda: handle.waiting == 1)
    with connect(bench.plan.settings.database_url) as connection:
        connection.execute(update(leaders).values(holder="another", expires_at=time.time() + 60))
    await asyncio.sleep(0.5)  # its lease has run out
    pipeline.go.set()
    await reaches(bench, running, RenderState.SUCCEEDED)
    await until(lambda: handle.waiting == 0)
    await asyncio.sleep(0.1)
    assert await state(bench, queued)() is RenderState.QUEUED


async def test_one_that_closes_leaves_what_runs_to_its_generator_and_gives_free_slots_back(
    bench: Bench, dispatch: Dispatch
) -> None:
    handle = replicas(bench, 1)
    dispatcher = dispatch(handle)
    running, queued = await bench.submit(bench.spec(prompt=waits_after(1))), await bench.submit(bench.spec())
    pipeline = bench.replicas[0].pipeline
    await until(pipeline.waiting.is_set)
    await until(lambda: handle.waiting == 1)
    await dispatcher.close()
    assert handle.waiting == 0
    pipeline.go.set()
    await reaches(bench, running, RenderState.SUCCEEDED)
    assert await state(bench, queued)() is RenderState.QUEUED


async def test_a_store_that_was_away_is_used_again(bench: Bench, dispatch: Dispatch) -> None:
    dispatcher = dispatch(replicas(bench, 1))
    request = await bench.submit(bench.spec())
    with store_away(bench):
        await asyncio.sleep(0.2)
        await dispatcher.check_health()
    await reaches(bench, request, RenderState.SUCCEEDED)


async def test_new_settings_count_at_once_and_a_render_without_attempts_left_is_counted_as_ended(
    bench: Bench, dispatch: Dispatch, gauges: Gauges
) -> None:
    dispatcher = dispatch(replicas(bench, 1))
    dispatcher.reconfigure({"max_attempts": 1})
    claim = await bench.claim(bench.spec(), lease_s=0.01)

    async def failed() -> bool:
        return (await bench.render(claim)).error_code == "ATTEMPTS_EXHAUSTED"

    await until(failed)
    await until(lambda: gauges.ends)
    assert gauges.ends == [RenderEnd(MODEL, RenderState.FAILED, "ATTEMPTS_EXHAUSTED")]


async def test_a_loop_that_ended_is_no_good_health(bench: Bench, dispatch: Dispatch) -> None:
    dispatcher = dispatch(replicas(bench, 1))
    await dispatcher.check_health()
    await dispatcher.close()
    await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await dispatcher.check_health()


async def test_observers_see_the_queue(bench: Bench, dispatch: Dispatch, gauges: Gauges) -> None:
    dispatch(replicas(bench, 1))
    await bench.submit(bench.spec(prompt=waits_after(1)), bench.spec(), bench.spec())
    await until(
        lambda: bool(gauges.seen) and (gauges.seen[-1].queued.renders, gauges.seen[-1].running.renders) == (2, 1)
    )


async def test_a_dispatcher_that_could_not_start_has_nothing_to_close(bench: Bench) -> None:
    unborn = Dispatcher.__new__(Dispatcher)
    with pytest.raises(AttributeError):
        unborn.__init__(bench.plan, None)  # type: ignore[misc]  # as Serve does, which then calls __del__
    assert unborn.__del__() is None
