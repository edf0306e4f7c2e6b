"""The Generator in this process, over a small pipeline: from a claim to its end, whatever befalls it."""

import asyncio
import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from deployments import attempt as attempts
from deployments import health, publishing
from deployments.autoscaling import BUSY
from deployments.generator import Generator
from serve_app.errors import ConfigurationInvalid
from serve_app.jobs.coordination import dispatcher_of
from serve_app.jobs.endings import RenderEnd
from serve_app.jobs.records import output_name
from serve_app.jobs.states import RenderState
from serve_app.observers import End
from serve_app.spec import OutputFormat
from tests.deployments.conftest import Bench, Replica, store_away, until
from tests.deployments.small_pipeline import BREAKS, FAILS, OUT_OF_MEMORY, SLOW, draw, waits_after
from tests.fixtures.specs import MODEL

ENDLESS = 3000  # steps that nobody waits for
SLOW_HEARTBEAT = {"heartbeat_s": 30.0, "lease_s": 90.0}  # it would come far too late for a test


async def ended(replica: Replica, count: int = 1) -> End:
    """Wait for that many ends; return the last one."""
    await until(lambda: len(replica.heard.outcomes) == count)
    return replica.heard.outcomes[-1].end


async def waiting(replica: Replica) -> None:
    """Wait until a render waits after its step."""
    await until(replica.pipeline.waiting.is_set)


async def rendering(replica: Replica) -> None:
    """Wait until a render has made its first steps."""
    await until(lambda: "step 2" in replica.heard.signals)


async def test_a_claim_becomes_an_output(bench: Bench) -> None:
    replica = bench.replica()
    claim = await bench.claim(bench.spec("mine"))
    assert await replica.generator.render(claim) == (claim.spec.pair_key,)
    assert await ended(replica) is End.SUCCEEDED
    render = await bench.render(claim)
    assert render.state is RenderState.SUCCEEDED
    assert render.output == replica.heard.outputs[0]
    assert replica.heard.ends == [RenderEnd(MODEL, RenderState.SUCCEEDED, None)]
    with zipfile.ZipFile(bench.directory / "outputs" / render.output.name) as archive:
        frames = [np.asarray(Image.open(io.BytesIO(archive.read(name)))) for name in sorted(archive.namelist())]
    np.testing.assert_array_equal(frames, draw(claim.spec))
    assert replica.heard.signals == [
        "started",
        *(f"step {step}" for step in range(1, claim.spec.sample_steps + 1)),
        "published",
        "ended succeeded",
    ]


async def test_the_result_says_how_it_was_made(bench: Bench) -> None:
    replica = bench.replica()
    claim = await bench.claim(bench.spec("mine", warnings=("look at this",)))
    await replica.generator.render(claim)
    await ended(replica)
    output = (await bench.render(claim)).output
    assert output is not None
    made = output.metadata
    assert (made.attempt, made.pair_key, made.warnings) == (1, claim.spec.pair_key, ("look at this",))
    assert [lora.path for lora in made.loras] == [lora.reference for lora in claim.spec.loras]
    replica_s = replica.heard.outcomes[0].replica_s
    assert replica_s == pytest.approx(made.timings.fetch + made.timings.generate, abs=2e-4)
    (cost,) = (await bench.store.costs(bench.plan.cost_name)).values()
    assert claim.spec.sample_steps * cost.step_s + cost.other_s == pytest.approx(replica_s)


async def test_files_are_fetched_for_what_is_not_ready_and_only_for_that(bench: Bench) -> None:
    replica = bench.replica()
    mine, yours = bench.spec("mine"), bench.spec("yours")
    for spec in (mine, mine, yours):
        await replica.generator.render(await bench.claim(spec))
    # The small pipeline keeps one pair, and refuses files that it does not lack.
    assert replica.generator.record_routing_stats()["resident"] == [yours.pair_key]
    started = replica.generator.record_routing_stats()["runtime"]["start"]
    assert (started["load"], started["imports"] >= 0) == (0.25, True)
    assert await ended(replica, 3) is End.SUCCEEDED


async def test_a_lora_that_changed_after_acceptance_fails_its_render_without_a_step(bench: Bench) -> None:
    replica = bench.replica()
    spec = bench.spec("mine")
    (bench.directory / "loras" / "mine_low.safetensors").write_bytes(b"something else")
    claim = await bench.claim(spec)
    await replica.generator.render(claim)
    assert await ended(replica) is End.FAILED
    assert (await bench.render(claim)).error_code == "LORA_CHANGED"
    assert replica.heard.signals == ["started", "ended failed"]


async def test_the_device_is_free_before_the_output_is_stored(bench: Bench) -> None:
    replica = bench.replica()
    await replica.generator.render(await bench.claim(bench.spec(num_frames=81)))
    assert replica.heard.outcomes == []
    assert replica.generator.record_autoscaling_stats() == {BUSY: 1.0}
    await ended(replica)
    await until(lambda: replica.generator.record_autoscaling_stats() == {BUSY: 0.0})


async def test_a_cancel_stops_a_render_at_its_next_step(bench: Bench) -> None:
    replica = bench.replica()
    claim = await bench.claim(bench.spec(prompt=SLOW, sample_steps=ENDLESS))
    call = asyncio.create_task(replica.generator.render(claim))
    await rendering(replica)
    await bench.store.requests.cancel(claim.request_id)
    assert await call == ()
    assert await ended(replica) is End.CANCELED
    assert (await bench.render(claim)).state is RenderState.CANCELED
    assert (await bench.render(claim)).steps_done < ENDLESS
    assert not bench.files()


async def test_a_canceled_call_has_the_store_asked_at_once_and_ends_nothing_by_itself(bench: Bench) -> None:
    bench.tune(**SLOW_HEARTBEAT)
    replica = bench.replica()
    claim = await bench.claim(bench.spec(prompt=waits_after(1), sample_steps=50))
    call = asyncio.create_task(replica.generator.render(claim))
    await waiting(replica)
    call.cancel()  # nobody canceled the render in the store
    with pytest.raises(asyncio.CancelledError):
        await call
    replica.pipeline.go.set()
    assert await ended(replica) is End.SUCCEEDED


async def test_a_hint_brings_the_heartbeat_forward(bench: Bench) -> None:
    bench.tune(**SLOW_HEARTBEAT)
    replica = bench.replica()
    claim = await bench.claim(bench.spec(prompt=SLOW, sample_steps=ENDLESS))
    call = asyncio.create_task(replica.generator.render(claim))
    await rendering(replica)
    await bench.store.requests.cancel(claim.request_id)
    call.cancel()
    assert await ended(replica) is End.CANCELED  # within a third of the time until the next heartbeat


async def test_a_cancel_while_the_frames_are_encoded_still_counts(bench: Bench) -> None:
    replica = bench.replica()
    claim = await bench.claim(bench.spec(num_frames=81, width=192, height=192))
    await replica.generator.render(claim)  # encoding begins
    await bench.store.requests.cancel(claim.request_id)
    assert await ended(replica) is End.CANCELED
    assert not bench.files()
    assert (await bench.render(claim)).output is None


async def test_a_lost_lease_stops_the_render_and_nothing_is_written(bench: Bench) -> None:
    replica = bench.replica()
    claim = await bench.claim(bench.spec(prompt=SLOW, sample_steps=ENDLESS))
    call = asyncio.create_task(replica.generator.render(claim))
    await rendering(replica)
    await bench.store.claims.release(claim, max_attempts=3)  # as the sweep does once the lease has run out
    newer = await bench.claim()
    await call
    assert await ended(replica) is End.FENCED
    assert f"step {ENDLESS}" not in replica.heard.signals
    render = await bench.render(newer)
    assert (render.state, render.attempt, render.steps_done) == (RenderState.PROCESSING, 2, 0)
    assert not bench.files()


async def test_a_late_attempt_takes_its_file_back_and_changes_nothing(bench: Bench) -> None:
    early, late = bench.replica(), bench.replica()
    first = await bench.claim(bench.spec())
    await bench.store.claims.release(first, max_attempts=3)
    second = await bench.claim()
    await early.generator.render(second)
    await ended(early)
    before = await bench.render(second)
    # Its first heartbeat would stop it: this one ends before that.
    await late.generator.render(first)
    assert await ended(late) is End.FENCED
    assert await bench.render(first) == before
    assert before.output is not None
    assert bench.files() == {before.output.name}


async def test_files_of_attempts_that_died_before_they_could_publish_go_with_the_next_success(bench: Bench) -> None:
    replica = bench.replica()
    first = await bench.claim(bench.spec())
    stale = output_name(first.request_id, 0, 1, OutputFormat.PNG)
    path = bench.directory / "outputs" / stale
    path.parent.mkdir(parents=True)
    path.write_bytes(b"of an attempt that died")
    await bench.store.claims.release(first, max_attempts=3)
    second = await bench.claim()
    await replica.generator.render(second)
    await ended(replica)
    await until(lambda: bench.files() == {output_name(first.request_id, 0, 2, OutputFormat.PNG)})


async def test_an_end_waits_for_the_store(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "STORE_RETRY_S", 0.02)
    replica = bench.replica()
    claim = await bench.claim(bench.spec(prompt=waits_after(1)))
    call = asyncio.create_task(replica.generator.render(claim))
    await waiting(replica)
    with store_away(bench):
        replica.pipeline.go.set()
        await call
        await until(lambda: bool(bench.files()))
        await asyncio.sleep(0.1)
        assert replica.heard.outcomes == []
    assert await ended(replica) is End.SUCCEEDED
    assert (await bench.render(claim)).state is RenderState.SUCCEEDED


@pytest.mark.parametrize(("prompt", "code"), [(FAILS, "RENDER_FAILED"), (OUT_OF_MEMORY, "OUT_OF_MEMORY")])
async def test_a_render_that_fails_is_recorded_and_the_next_one_is_made(bench: Bench, prompt: str, code: str) -> None:
    replica = bench.replica()
    bad, good = await bench.claim(bench.spec(prompt=prompt)), await bench.claim(bench.spec())
    await replica.generator.render(bad)
    await replica.generator.render(good)
    await ended(replica, 2)
    assert [outcome.end for outcome in replica.heard.outcomes] == [End.FAILED, End.SUCCEEDED]
    error = replica.heard.outcomes[0].error
    assert error is not None
    assert (await bench.render(bad)).error_code == error.code == code
    assert replica.left == []


async def test_a_broken_device_gives_its_render_back_and_leaves_once_what_is_stored_is_done(bench: Bench) -> None:
    replica = bench.replica()
    done, doomed = await bench.claim(bench.spec(num_frames=41)), await bench.claim(bench.spec(prompt=BREAKS))
    await replica.generator.render(done)  # its frames are being encoded
    await replica.generator.render(doomed)
    assert await ended(replica, 2) is End.RELEASED
    assert replica.left == ["the device failed its probe"]
    assert (await bench.render(done)).state is RenderState.SUCCEEDED
    given_back = await bench.render(doomed)
    assert (given_back.state, given_back.error_code) == (RenderState.QUEUED, None)


async def test_a_render_past_its_deadline_fails(bench: Bench) -> None:
    replica = bench.replica()
    replica.generator.reconfigure({"render_timeout_s": 0.05})
    claim = await bench.claim(bench.spec(prompt=SLOW, sample_steps=ENDLESS))
    await replica.generator.render(claim)
    assert await ended(replica) is End.FAILED
    assert (await bench.render(claim)).error_code == "DEADLINE_EXCEEDED"


async def test_a_device_that_hangs_ends_its_process(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "HANGS_AFTER_S", 0.0)
    replica = bench.replica()
    replica.generator.reconfigure({"render_timeout_s": 0.5})
    claim = await bench.claim(bench.spec(prompt=waits_after(1)))
    call = asyncio.create_task(replica.generator.render(claim))
    await until(lambda: bool(replica.left))
    assert replica.left[0] == f"render {claim.render_id} hangs"
    replica.pipeline.go.set()
    await call


async def test_a_replica_that_is_passed_by_leaves_at_the_third_check(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "STARVED_S", 0.0)
    replica = bench.replica()
    await replica.generator.check_health()  # nothing waits
    await bench.submit(bench.spec())
    await replica.generator.check_health()  # nobody dispatches
    await bench.store.leadership(dispatcher_of(MODEL)).hold(60, 1)
    for _ in range(2):
        await replica.generator.check_health()
    assert replica.left == []
    await replica.generator.check_health()
    assert len(replica.left) == 1


async def test_a_replica_at_work_is_not_starved(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "STARVED_S", 0.0)
    replica = bench.replica()
    claim = await bench.claim(bench.spec(prompt=waits_after(1)))
    await bench.submit(bench.spec())
    await bench.store.leadership(dispatcher_of(MODEL)).hold(60, 1)
    call = asyncio.create_task(replica.generator.render(claim))
    await waiting(replica)
    for _ in range(4):
        await replica.generator.check_health()
    assert replica.left == []
    replica.pipeline.go.set()
    await call


async def test_closing_waits_for_what_is_being_stored(bench: Bench) -> None:
    replica = bench.replica()
    claim = await bench.claim(bench.spec(num_frames=81))
    await replica.generator.render(claim)
    await replica.generator.close()
    assert (await bench.render(claim)).state is RenderState.SUCCEEDED


async def test_a_generator_that_could_not_start_has_nothing_to_close(bench: Bench) -> None:
    plan = bench.plan.model_copy(update={"card": bench.plan.card.model_copy(update={"pipeline": "nowhere:Nothing"})})
    unborn = Generator.__new__(Generator)
    with pytest.raises(ConfigurationInvalid, match="nowhere"):
        unborn.__init__(plan)  # type: ignore[misc]  # as Serve does, which then calls __del__
    assert unborn.__del__() is None
