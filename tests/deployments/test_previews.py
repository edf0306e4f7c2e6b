"""Previews of a running render: asked for, paced, in the store while it runs, gone afterwards."""

import asyncio
import io
from time import monotonic

import numpy as np
import pytest
from PIL import Image

from deployments import previews
from deployments.attempt import Attempt
from deployments.device import worker_thread
from deployments.previews import Previews, animated
from serve_app.jobs.records import Claim, Preview
from tests.deployments.conftest import Bench, until
from tests.deployments.small_pipeline import waits_after
from tests.fixtures.specs import make_spec


async def shown(bench: Bench, claim: Claim) -> Preview | None:
    """Return the preview of a render, as whoever listens gets it."""
    record = await bench.store.requests.get(claim.request_id)
    news = await bench.store.requests.look({record.id: record}, {claim.render_id: 0}, places=False)
    return news.previews.get(claim.render_id)


async def test_a_preview_is_in_the_store_while_the_render_runs(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(previews, "_FIRST_S", 0.0)
    replica = bench.replica()
    claim = await bench.claim(bench.spec("a", prompt=waits_after(2), previews=True))
    task = asyncio.create_task(replica.generator.render(claim))
    await until(lambda: shown(bench, claim))
    found = await shown(bench, claim)
    assert found is not None
    assert found.step in (1, 2)
    with Image.open(io.BytesIO(found.image)) as image:
        assert (image.format, image.size) == ("WEBP", (64, 64))
    replica.pipeline.go.set()
    await task
    await replica.generator.close()
    assert await shown(bench, claim) is None


async def test_who_asks_for_none_gets_none(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(previews, "_FIRST_S", 0.0)
    drawn = []
    monkeypatch.setattr(Previews, "offer", lambda *_: drawn.append(1))
    replica = bench.replica()
    claim = await bench.claim(bench.spec("a"))
    await replica.generator.render(claim)
    assert drawn == []


def test_previews_take_less_than_a_hundredth_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(previews, "monotonic", lambda: now[0])
    claim = Claim(render_id=1, request_id="r", index=0, attempt=1, token="t", spec=make_spec())
    paced = Previews(Attempt(claim, 1e9, started=monotonic()), worker_thread("encoding", yielding=False))
    spent = 0.0

    def draw() -> None:
        nonlocal spent
        now[0] += 0.05
        spent += 0.05

    began = now[0]
    for step in range(10_000):
        now[0] += 0.02
        paced.offer(step, draw)
    assert 0.005 < spent / (now[0] - began) < 0.01


def test_a_preview_is_small_and_plays_as_long_as_the_video() -> None:
    frames = np.random.default_rng(0).integers(0, 255, (8, 60, 104, 3), np.uint8)
    data = animated(frames, seconds=2.0)
    assert len(data) < 100_000  # of noise, which is the worst
    with Image.open(io.BytesIO(data)) as image:
        assert (image.n_frames, image.info["loop"]) == (8, 0)  # type: ignore[attr-defined]  # of animations
        durations = []
        for number in range(8):
            image.seek(number)
            image.load()
            durations.append(image.info["duration"])
    assert sum(durations) == 2000
