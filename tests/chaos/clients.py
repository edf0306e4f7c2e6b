"""Clients that never give up: each posts one request under one idempotency key, and asks until it has its frames."""

import asyncio
import hashlib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import httpx

from tests.client import ENDED

_RETRY_S = 0.3
_POLL_S = 0.25
_TRANSIENT = frozenset({429, 500, 502, 503, 504})


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
    """Every job through to its end, `clients` at a time."""
    turn = asyncio.Semaphore(clients)
    async with httpx.AsyncClient(base_url=url, timeout=10) as http:

        async def run(job: Job) -> Result:
            async with turn:
                return await _run(http, job)

        return await asyncio.gather(*(run(job) for job in jobs))


async def _run(http: httpx.AsyncClient, job: Job) -> Result:
    accepted = await _insist(http, "POST", "/v1/inference", json=job.body, headers={"Idempotency-Key": job.key})
    request_id = accepted.json()["request_id"]
    status = await _ended(http, request_id)
    if status["status"] != "succeeded":
        return Result(job, request_id, status["status"], status["error_code"], None, None)
    result = (await _insist(http, "GET", f"/v1/requests/{request_id}/result")).json()
    (made,) = result["metadata"]["prompts"]
    archive = await _insist(http, "GET", f"/v1/requests/{request_id}/outputs/0")
    return Result(job, request_id, "succeeded", None, _frames(archive.content), made["attempt"])


async def _ended(http: httpx.AsyncClient, request_id: str) -> dict[str, Any]:
    """The status of a request that has ended."""
    while True:
        status: dict[str, Any] = (await _insist(http, "GET", f"/v1/requests/{request_id}/status")).json()
        if status["status"] in ENDED:
            return status
        await asyncio.sleep(_POLL_S)


async def _insist(http: httpx.AsyncClient, method: str, path: str, **options: Any) -> httpx.Response:
    """Ask until there is an answer that is not about the service's own trouble."""
    while True:
        try:
            answer = await http.request(method, path, **options)
        except httpx.TransportError:
            await asyncio.sleep(_RETRY_S)
            continue
        if not _is_trouble(answer):
            return answer.raise_for_status()
        await asyncio.sleep(_RETRY_S)


def _is_trouble(answer: httpx.Response) -> bool:
    """Whether the service could not answer. While a cluster starts, Serve's proxy itself says 404, in plain text."""
    starting = answer.status_code == httpx.codes.NOT_FOUND and "json" not in answer.headers["content-type"]
    return starting or answer.status_code in _TRANSIENT


def _frames(archive: bytes) -> str:
    digest = hashlib.sha256()
    with zipfile.ZipFile(BytesIO(archive)) as frames:
        for name in sorted(frames.namelist()):
            digest.update(frames.read(name))
    return digest.hexdigest()
