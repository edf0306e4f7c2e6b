"""Preparation beside a real Generator: LoRA files from a web server are fetched while the render before still runs."""

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from deployments import preparation
from serve_app.jobs.records import Claim, Foreseen, NewRequest
from serve_app.jobs.states import RenderState
from serve_app.loras.sources.base import identity
from serve_app.observers import End
from serve_app.spec import Expert, LoraFile, RenderSpec
from tests.deployments.conftest import Bench, Replica, until
from tests.deployments.small_pipeline import waits_after
from tests.fixtures.web_server import Exchange, File, WebServer, web_server
from tests.serve_app.loras.files import full, save

PATH = "/next.safetensors"


@dataclass
class Foreseer:
    """Tells what a test wants it to tell."""

    coming: Foreseen | None = None
    asked: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)

    async def __call__(self, replica_id: str, ready: tuple[str, ...]) -> Foreseen | None:
        self.asked.append((replica_id, ready))
        return self.coming


@dataclass
class Gate:
    """A file that is sent once `opened` is set."""

    file: File
    opened: threading.Event = field(default_factory=threading.Event)

    def __call__(self, exchange: Exchange, count: int) -> None:
        self.opened.wait(30)
        self.file(exchange, count)


@dataclass
class Stage:
    """A Generator that is told of one render, whose LoRA a web server has."""

    bench: Bench
    server: WebServer
    gate: Gate
    foreseer: Foreseer = field(default_factory=Foreseer)

    def replica(self) -> Replica:
        return self.bench.replica(self.foreseer)

    @property
    def downloads(self) -> int:
        return self.server.count(PATH)

    def spec(self) -> RenderSpec:
        """Return a render with the LoRA from the web server."""
        location = f"{self.server.url}{PATH}"
        content = self.gate.file.content
        lora = LoraFile(
            expert=Expert.HIGH,
            reference=location,
            location=location,
            content=identity(location, '"1"', len(content)),
            sha256=None,
            multiplier=1.0,
            size=len(content),
        )
        return self.bench.spec(loras=(lora,))

    async def foresee(self, running: Claim, spec: RenderSpec) -> NewRequest:
        """Submit `spec` while `running` runs, and foresee it."""
        request = await self.bench.submit(spec)
        self.foreseer.coming = await self.bench.store.claims.foresee(running.render_id + 1)
        return request


@pytest.fixture
def stage(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setattr(preparation, "FIRST_ASKED_S", 0.01)
    monkeypatch.setattr(preparation, "AGAIN_S", 0.02)
    with web_server() as server:
        path = save(bench.directory / "remote.safetensors", full(rank=2), {"format": "pt"})
        gate = Gate(File(path.read_bytes()))
        gate.opened.set()
        server.pages[PATH] = gate
        bench.tune(lora_private_hosts=(server.host,), lora_allow_http=True)
        yield Stage(bench, server, gate)
        gate.opened.set()


async def begin(stage: Stage, replica: Replica) -> tuple[Claim, "asyncio.Task[tuple[str, ...]]"]:
    """Start a render that waits after its first step."""
    claim = await stage.bench.claim(stage.bench.spec("mine", prompt=waits_after(1)))
    call = asyncio.create_task(replica.generator.render(claim))
    await until(replica.pipeline.waiting.is_set)
    return claim, call


async def prepared(replica: Replica) -> None:
    """Wait until something was prepared, or given up."""
    await until(lambda: bool(replica.heard.prepared_s))


async def ends(replica: Replica, count: int) -> list[End]:
    """Wait for that many ends, and return them."""
    await until(lambda: len(replica.heard.outcomes) == count)
    return [outcome.end for outcome in replica.heard.outcomes]


async def test_the_files_of_the_next_render_are_there_before_it_is_claimed(stage: Stage) -> None:
    replica = stage.replica()
    running, call = await begin(stage, replica)
    await stage.foresee(running, stage.spec())
    await prepared(replica)
    asked_of, ready = stage.foreseer.asked[0]
    assert (asked_of, ready[0]) == ("replica", running.spec.pair_key)
    downloads = stage.downloads
    replica.pipeline.go.set()
    await call
    await replica.generator.render(await stage.bench.claim())
    assert await ends(replica, 2) == [End.SUCCEEDED, End.SUCCEEDED]
    assert stage.downloads == downloads > 0
    assert len(replica.heard.prepared_s) == 1  # it was asked for again and again, and prepared once


async def test_what_is_prepared_stays_queued_and_a_cancel_ends_it_at_once(stage: Stage) -> None:
    stage.gate.opened.clear()
    replica = stage.replica()
    running, call = await begin(stage, replica)
    request = await stage.foresee(running, stage.spec())
    await until(lambda: stage.downloads > 0)
    record = await stage.bench.store.requests.get(request.id)
    assert (record.state, record.renders[0].attempt) == (RenderState.QUEUED, 0)
    canceled = await stage.bench.store.requests.cancel(request.id)
    assert canceled.state is RenderState.CANCELED
    replica.pipeline.go.set()
    await call
    assert await ends(replica, 1) == [End.SUCCEEDED]


async def test_another_replica_takes_what_one_prepares_without_waiting_for_it(stage: Stage) -> None:
    stage.gate.opened.clear()
    busy, free = stage.replica(), stage.bench.replica()
    running, call = await begin(stage, busy)
    await stage.foresee(running, stage.spec())
    await until(lambda: stage.downloads > 0)
    taken = await stage.bench.claim()
    made = asyncio.create_task(free.generator.render(taken))
    stage.gate.opened.set()
    await made
    assert await ends(free, 1) == [End.SUCCEEDED]
    assert (await stage.bench.render(taken)).attempt == 1
    assert busy.heard.outcomes == []
    busy.pipeline.go.set()
    await call


async def test_a_render_joins_the_download_that_was_begun_for_it(stage: Stage) -> None:
    stage.gate.opened.clear()
    replica = stage.replica()
    running, call = await begin(stage, replica)
    await stage.foresee(running, stage.spec())
    await until(lambda: stage.downloads > 0)
    replica.pipeline.go.set()
    await call  # a render's end does not wait for what was begun beside it
    following = asyncio.create_task(replica.generator.render(await stage.bench.claim()))
    await until(lambda: replica.heard.signals.count("started") == 2)
    stage.gate.opened.set()
    await following
    assert await ends(replica, 2) == [End.SUCCEEDED, End.SUCCEEDED]
    assert stage.downloads == 1


async def test_files_that_cannot_be_fetched_end_their_own_render_and_no_other(stage: Stage) -> None:
    del stage.server.pages[PATH]
    replica = stage.replica()
    running, call = await begin(stage, replica)
    await stage.foresee(running, stage.spec())
    await prepared(replica)
    replica.pipeline.go.set()
    await call
    assert await ends(replica, 1) == [End.SUCCEEDED]
    following = await stage.bench.claim()
    await replica.generator.render(following)
    assert await ends(replica, 2) == [End.SUCCEEDED, End.FAILED]
    assert (await stage.bench.render(following)).error_code == "LORA_CHANGED"


async def test_a_silent_dispatcher_ends_nothing(stage: Stage) -> None:
    asked = asyncio.Event()

    async def silent(_replica_id: str, _ready: tuple[str, ...]) -> Foreseen | None:
        asked.set()
        raise ConnectionError("nobody answers")

    replica = stage.bench.replica(silent)
    _, call = await begin(stage, replica)
    await asked.wait()
    replica.pipeline.go.set()
    await call
    assert await ends(replica, 1) == [End.SUCCEEDED]


async def test_what_is_in_memory_is_not_fetched(stage: Stage) -> None:
    replica = stage.replica()
    running, call = await begin(stage, replica)
    await stage.foresee(running, running.spec)
    await until(lambda: len(stage.foreseer.asked) > 2)
    assert replica.heard.prepared_s == []
    replica.pipeline.go.set()
    await call


@pytest.mark.parametrize("ahead_s", [0, 0.5])
async def test_nobody_is_asked_before_the_end_is_near(stage: Stage, ahead_s: float) -> None:
    stage.bench.tune(prepare_ahead_s=ahead_s)
    replica = stage.replica()
    running, call = await begin(stage, replica)  # it is predicted to take a second
    await stage.foresee(running, stage.spec())
    await asyncio.sleep(0.1)
    assert stage.foreseer.asked == []
    if ahead_s:
        await prepared(replica)
    replica.pipeline.go.set()
    await call
