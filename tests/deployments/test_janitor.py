"""Retention in the background: one process sweeps, as the args say."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from uuid import uuid4

import pytest

from deployments.janitor import Janitor
from serve_app.jobs.store import JobStore
from serve_app.outputs import OutputStore
from serve_app.settings import Settings
from tests.deployments.conftest import until


def orphan(outputs: Path) -> Path:
    path = outputs / str(uuid4()) / "0-1.mp4"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x")
    os.utime(path, (0, 0))
    return path


@asynccontextmanager
async def running(janitor: Janitor, settings: Settings) -> AsyncIterator[None]:
    """Run a janitor while the block runs."""
    task = asyncio.create_task(janitor.run(lambda: settings))
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(("mode", "stays"), [("off", True), ("dry-run", True), ("on", False)])
async def test_it_removes_only_where_retention_is_on(
    store: JobStore, tmp_path: Path, mode: str, *, stays: bool
) -> None:
    settings = Settings.model_validate({"retention": mode, "retention_every_s": 0.05})
    path = orphan(tmp_path / "outputs")
    async with running(Janitor(store, OutputStore.from_url((tmp_path / "outputs").as_uri())), settings):
        if stays:
            await asyncio.sleep(0.5)  # ten times as long as between two sweeps
            assert path.exists()
        else:
            await until(lambda: not path.exists())


async def test_only_one_process_sweeps(store: JobStore, tmp_path: Path) -> None:
    settings = Settings.model_validate({"retention": "on", "retention_every_s": 0.05})
    first, second = [Janitor(store, OutputStore.from_url((tmp_path / name).as_uri())) for name in ("outputs", "others")]
    swept = orphan(tmp_path / "outputs")
    left = orphan(tmp_path / "others")
    async with running(first, settings):
        await until(lambda: not swept.exists())
        async with running(second, settings):
            await asyncio.sleep(0.5)
    assert left.exists()
