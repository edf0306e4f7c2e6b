"""The place for outputs is full, read-only or gone: nothing rendered is lost, nothing is claimed, /health tells."""

import asyncio
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments import storage_retries
from deployments.dispatcher import Dispatcher
from serve_app.jobs.coordination import OUTPUTS_FAIL
from serve_app.jobs.states import RenderState
from serve_app.observers import End, Observers
from serve_app.outputs import health
from tests.client import Client, body
from tests.deployments.conftest import Bench, Replica, until
from tests.deployments.local_serve import LocalHandle
from tests.deployments.small_pipeline import waits_after
from tests.fixtures.api import Api
from tests.fixtures.s3 import S3Server, running_s3
from tests.service_process import ServiceProcess, free_port

DISK = 64 * 1024  # bytes
LIMIT = 100_000  # bytes; less than a look writes, and more than the job store does in these tests


@contextmanager
def a_file_for_the_directory(root: Path) -> Iterator[None]:
    aside = root.with_name("aside")
    shutil.move(root, aside)
    root.touch()
    try:
        yield
    finally:
        root.unlink()
        shutil.move(aside, root)


@contextmanager
def no_room(_root: Path) -> Iterator[None]:
    """No file may grow beyond a size, for root neither: as a disk or a quota that is nearly full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def a_full_disk(root: Path) -> Iterator[None]:
    """Lay a file system over the directory that has room for nothing of the size of an output."""
    subprocess.run(["/bin/mount", "-t", "tmpfs", "-o", f"size={DISK}", "outputs", root], check=True)
    try:
        yield
    finally:
        subprocess.run(["/bin/umount", "-l", root], check=True)


def may_mount() -> bool:
    """Return whether this process may: as root, and in few containers."""
    with tempfile.TemporaryDirectory() as place:
        if subprocess.run(["/bin/mount", "-t", "tmpfs", "probe", place], capture_output=True, check=False).returncode:
            return False
        subprocess.run(["/bin/umount", "-l", place], check=True)
        return True


Harm = Callable[[Path], AbstractContextManager[None]]
HARM = [a_file_for_the_directory, no_room, *([a_full_disk] if may_mount() else [])]
LARGE: dict[str, Any] = {"num_frames": 41, "width": 192, "height": 192}  # its file is larger than LIMIT


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_retries, "RETRY_S", 0.05)
    monkeypatch.setattr(health, "_FRESH_S", 0.05)
    monkeypatch.setattr(health, "_FAILING_FRESH_S", 0.05)


async def paused(bench: Bench) -> bool:
    return await bench.store.leadership(OUTPUTS_FAIL).is_held()


async def is_paused(bench: Bench) -> None:
    await until(lambda: paused(bench))


async def ended(replica: Replica) -> End:
    await until(lambda: bool(replica.heard.outcomes))
    return replica.heard.outcomes[-1].end


@pytest.mark.parametrize("harm", HARM)
async def test_what_is_rendered_is_kept_until_it_can_be_stored(bench: Bench, harm: Harm) -> None:
    root = bench.directory / "outputs"
    replica = bench.replica()
    claim = await bench.claim(bench.spec(prompt=waits_after(1), **LARGE))
    call = asyncio.create_task(replica.generator.render(claim))
    await until(replica.pipeline.waiting.is_set)
    with harm(root):
        replica.pipeline.go.set()
        await call
        await is_paused(bench)
        await asyncio.sleep(0.3)
        assert (await bench.render(claim)).state is RenderState.PROCESSING
        assert not root.is_dir() or list(root.iterdir()) == []  # no empty folder, and no part of a file
    assert await ended(replica) is End.SUCCEEDED
    assert (await bench.render(claim)).attempt == 1
    output = (await bench.render(claim)).output
    assert output is not None
    assert bench.files() == {output.name}
    assert not await paused(bench)


async def test_a_render_that_waits_for_its_place_can_be_canceled_and_so_can_the_next(bench: Bench) -> None:
    replica = bench.replica()
    with a_file_for_the_directory(bench.directory / "outputs"):
        claims = [await bench.claim(bench.spec(seed=seed)) for seed in range(2)]
        calls = [asyncio.create_task(replica.generator.render(claim)) for claim in claims]
        await is_paused(bench)
        for claim in claims:
            await bench.store.requests.cancel(claim.request_id)
        await asyncio.gather(*calls)
        await until(lambda: len(replica.heard.outcomes) == len(claims))
    assert [outcome.end for outcome in replica.heard.outcomes] == [End.CANCELED] * len(claims)
    assert not await paused(bench)


async def test_a_replica_that_waits_for_its_place_does_not_count_as_hanging_or_starved(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.attempt.HANGS_AFTER_S", 0.5)
    monkeypatch.setattr("deployments.health.STARVED_S", 0.0)
    replica = bench.replica()
    replica.generator.reconfigure({"render_timeout_s": 0.5})
    claim = await bench.claim(bench.spec())
    await bench.submit(bench.spec())
    with a_file_for_the_directory(bench.directory / "outputs"):
        await replica.generator.render(claim)
        await is_paused(bench)
        await asyncio.sleep(1.5)
        for _ in range(4):
            await replica.generator.check_health()
    assert await ended(replica) is End.SUCCEEDED
    assert replica.left == []


async def test_a_file_that_alone_cannot_be_stored_fails_its_render(bench: Bench) -> None:
    replica = bench.replica()
    claim = await bench.claim(bench.spec())
    (bench.directory / "outputs" / claim.request_id).touch()
    await replica.generator.render(claim)
    assert await ended(replica) is End.FAILED
    assert (await bench.render(claim)).error_code == "OUTPUT_NOT_WRITTEN"
    assert not await paused(bench)


@pytest.mark.parametrize("harm", HARM)
async def test_nothing_is_claimed_while_outputs_cannot_be_stored(bench: Bench, harm: Harm) -> None:
    replica = bench.replica()
    with harm(bench.directory / "outputs"):
        dispatcher = Dispatcher(bench.plan, LocalHandle({"r0": replica.generator}), observers=Observers())
        request = await bench.submit(bench.spec())
        await is_paused(bench)
        await asyncio.sleep(0.3)
        (render,) = (await bench.store.requests.get(request.id)).renders
        assert (render.state, render.attempt) == (RenderState.QUEUED, 0)
        assert replica.heard.signals == []
    assert await ended(replica) is End.SUCCEEDED
    assert not await paused(bench)
    await dispatcher.close()


async def test_nothing_is_claimed_while_a_replica_cannot_store_what_it_has_rendered(bench: Bench) -> None:
    replica, pause = bench.replica(), bench.store.leadership(OUTPUTS_FAIL)
    await pause.hold(60, 0)
    dispatcher = Dispatcher(bench.plan, LocalHandle({"r0": replica.generator}), observers=Observers())
    await bench.submit(bench.spec())
    await asyncio.sleep(0.3)
    assert replica.heard.signals == []
    await pause.resign()
    assert await ended(replica) is End.SUCCEEDED
    await dispatcher.close()


async def test_a_bucket_that_is_unreachable_keeps_renders_waiting_and_takes_them_later(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    for name, value in S3Server(f"http://127.0.0.1:{port}").environment().items():
        monkeypatch.setenv(name, value)
    bench.tune(output_url="s3://videos/outputs")
    replica = bench.replica()
    claim = await bench.claim(bench.spec())
    await replica.generator.render(claim)
    await asyncio.sleep(0.5)
    assert (await bench.render(claim)).state is RenderState.PROCESSING
    with running_s3(port) as server:
        await asyncio.to_thread(server.create, "videos")
        await until(lambda: bool(replica.heard.outcomes), within_s=60)
    assert replica.heard.outcomes[-1].end is End.SUCCEEDED


async def test_health_is_503_with_the_reason_while_outputs_cannot_be_stored(api: Api) -> None:
    async def answer() -> httpx.Response:
        return await api.http.get("/health")

    async def is_healthy() -> bool:
        return (await answer()).status_code == httpx.codes.OK

    async def is_unhealthy() -> bool:
        return not await is_healthy()

    assert await is_healthy()
    with a_file_for_the_directory(api.directory / "outputs"):
        await until(is_unhealthy)
        told = (await answer()).json()
        assert told["status"] == "unhealthy"
        assert told["problem"]["code"] == "OUTPUT_STORAGE_UNAVAILABLE"
        assert "File exists" in told["problem"]["message"] or "directory" in told["problem"]["message"]
        await api.submit(body())  # what is accepted waits
    await until(is_healthy)
    assert (await answer()).json()["problem"] is None


def test_a_service_waits_for_its_place_and_continues_by_itself(service: ServiceProcess, client: Client) -> None:
    root = service.directory / "var" / "outputs"
    with a_file_for_the_directory(root):
        waiting = client.submit(body())
        deadline = time.monotonic() + 60  # what the last look found counts for some seconds
        while client.http.get("/health").status_code != httpx.codes.SERVICE_UNAVAILABLE:
            assert time.monotonic() < deadline, "the service says that it is healthy"
            time.sleep(0.1)
        assert client.status(waiting)["status"] in ("in_queue", "in_progress")
    assert client.wait(waiting)["status"] == "succeeded"
