"""Clients that never give up: each posts one request under one idempotency key, and asks until it has its frames."""

import asyncio
import hashlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from serve_app.client import AsyncClient, InferenceRequest
from tests.client import pixels

_NEVER_S = 3600.0  # the run has a time limit of its own


@dataclass(frozen=True)
class Job:
    """One request of one render. Jobs with the same `spec` must give the same frames."""

    key: str
    spec: str
    body: dict[str, Any]


@dataclass(frozen=True)
class Result:
    """What a client saw at the end."""

    job: Job
    request_id: str
    status: str
    error_code: str | None
    frames: str | None  # digest of all frames, lossless
    attempt: int | None


async def run_clients(url: str, jobs: Sequence[Job], clients: int) -> list[Result]:
    """Take every job through to its end, `clients` at a time."""
    turn = asyncio.Semaphore(clients)
    with TemporaryDirectory() as directory:
        async with AsyncClient(url, patience_s=_NEVER_S) as client:

            async def run(job: Job) -> Result:
                async with turn:
                    return await _run(client, job, Path(directory) / f"{job.key}.zip")

            return await asyncio.gather(*(run(job) for job in jobs))


async def _run(client: AsyncClient, job: Job, path: Path) -> Result:
    accepted = await client.submit(InferenceRequest.model_validate(job.body), idempotency_key=job.key)
    status = await client.wait(accepted.request_id)
    if status.status != "succeeded":
        return Result(job, accepted.request_id, status.status, status.error_code, None, None)
    result = await client.result(accepted.request_id)
    assert result.outputs is not None
    assert result.metadata is not None
    archive = await client.download(result.outputs.videos[0], path)
    frames = await asyncio.to_thread(_frames, archive)
    return Result(job, accepted.request_id, "succeeded", None, frames, result.metadata.prompts[0].attempt)


def _frames(archive: Path) -> str:
    digest = hashlib.sha256()
    for frame in pixels(archive.read_bytes()):
        digest.update(frame)
    return digest.hexdigest()


class Load:
    """Clients at work in a thread of their own."""

    def __init__(self, url: str, jobs: Sequence[Job], clients: int) -> None:
        self._results: list[Result] = []
        self._thread = threading.Thread(
            target=lambda: self._results.extend(asyncio.run(run_clients(url, jobs, clients))), daemon=True
        )
        self._thread.start()

    @property
    def goes_on(self) -> bool:
        return self._thread.is_alive()

    def results(self, within_s: float = _NEVER_S) -> list[Result]:
        """Return what every client saw, once all have their frames."""
        self._thread.join(within_s)
        assert not self._thread.is_alive(), f"some clients still wait after {within_s:.0f} s"
        return self._results
