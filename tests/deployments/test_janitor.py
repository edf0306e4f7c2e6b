"""Retention in the background: one process sweeps, as the args say."""

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest

from deployments.janitor import Janitor
from serve_app.jobs.store import JobStore
from serve_app.outputs import OutputStore
from serve_app.settings import Settings


def orphan(outputs: Path) -> Path:
    path = outputs / str(uuid4()) / "0-1.mp4"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x")
    os.utime(path, (0, 0))
    return path


async def run_for(janitor: Janitor, settings: Settings, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(janitor.run(lambda: settings), seconds)


@pytest.mark.parametrize(("mode", "stays"), [("off", True), ("dry-run", True), ("on", False)])
async def test_it_removes_only_where_retention_is_on(
    store: JobStore, tmp_path: Path, mode: str, *, stays: bool
) -> None:
    settings = Settings.model_validate({"retention": mode, "retention_every_s": 0.05})
    path = orphan(tmp_path / "outputs")
    await run_for(Janitor(store, OutputStore.from_url((tmp_path / "outputs").as_uri())), settings, 1)
    assert path.exists() is stays


async def test_only_one_process_sweeps(store: JobStore, tmp_path: Path) -> None:
    settings = Settings.model_validate({"retention": "on", "retention_every_s": 0.05})
    first, second = [Janitor(store, OutputStore.from_url((tmp_path / name).as_uri())) for name in ("outputs", "others")]
    swept = orphan(tmp_path / "outputs")
    left = orphan(tmp_path / "others")
    await run_for(first, settings, 1)
    await run_for(second, settings, 0.5)
    assert (swept.exists(), left.exists()) == (False, True)
