"""Mixed load: clients that render, listen, cancel, fail, are refused, repeat themselves and delete, until time is up.

Each keeps account of what it was promised: an accepted request ends, once, and a repeated POST is the same request.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

from serve_app.client import AsyncClient, InferenceRequest
from serve_app.errors import ServiceError
from tests.client import body, pair
from tests.loras.layouts import write
from tests.loras.model import DEMO

logger = logging.getLogger("soak")

PAIRS = ("first", "second", "third")
_SIZES = ((64, 64), (96, 64), (64, 96))
_LONG = 60  # denoising steps, so that a cancel meets a render at work
_PATIENCE_S = 300.0
_WITHIN_S = 600.0  # of the queue, at the end of a run

Json = dict[str, Any]


@dataclass(slots=True)
class Tally:
    """What became of everything that was asked for."""

    accepted: int = 0
    ends: dict[str, int] = field(default_factory=dict)
    refused: int = 0
    deleted: int = 0
    lost: list[str] = field(default_factory=list)  # accepted, and without an end; or succeeded, and without a video
    doubled: list[str] = field(default_factory=list)  # more than one request for a key, or video for a prompt

    @property
    def is_whole(self) -> bool:
        """Whether everything ended once, and something did."""
        return self.ends.get("succeeded", 0) > 0 and not self.lost and not self.doubled

    def __str__(self) -> str:
        ends = ", ".join(f"{count} {end}" for end, count in sorted(self.ends.items()))
        return (
            f"accepted {self.accepted} ({ends}), refused {self.refused}, deleted {self.deleted}; "
            f"lost {len(self.lost)}, doubled {len(self.doubled)}"
        )


def write_pairs(root: Path) -> None:
    """Write the LoRA pairs that the clients name."""
    root.mkdir(exist_ok=True)
    for number, name in enumerate(PAIRS):
        for seed, lora in enumerate(pair(name), 2 * number):
            write("ai-toolkit", root, sizes=DEMO, seed=seed).path.rename(root / lora["path"])


class Load:
    """The clients of one service, whose state lies in `directory`."""

    def __init__(self, url: str, keys: Sequence[str], directory: Path) -> None:
        self._url = url
        self._keys = keys
        self._outputs = directory / "var" / "outputs"
        self._loras = directory / "loras"
        self.tally = Tally()

    async def run(self, clients: int, seconds: float) -> None:
        """Keep so many clients busy for so long, and wait for what they have asked for."""
        until = time.monotonic() + seconds
        await asyncio.gather(*(self._client(number, until) for number in range(clients)))

    async def _client(self, number: int, until: float) -> None:
        kinds: dict[Callable[[AsyncClient], Awaitable[None]], int] = {
            self._render: 8,
            self._listen: 3,
            self._repeat: 2,
            self._cancel_at_once: 2,
            self._cancel_at_work: 1,
            self._fail: 2,
            self._be_refused: 2,
            self._delete: 2,
        }
        key = self._keys[number % len(self._keys)]
        async with AsyncClient(self._url, key, patience_s=_PATIENCE_S) as client:
            while time.monotonic() < until:
                (kind,) = random.choices(list(kinds), list(kinds.values()))
                await kind(client)
                await asyncio.sleep(random.uniform(0, 0.5))

    async def _render(self, client: AsyncClient) -> None:
        await self._ended(client, await self._submitted(client, _request()))

    async def _listen(self, client: AsyncClient) -> None:
        request_id = await self._submitted(client, _request())
        async for _ in client.events(request_id):
            pass
        await self._ended(client, request_id)

    async def _repeat(self, client: AsyncClient) -> None:
        key, request = str(uuid4()), _request()
        request_id = await self._submitted(client, request, key)
        again = await client.submit(InferenceRequest.model_validate(request), idempotency_key=key)
        if again.request_id != request_id:
            self._doubled(f"{request_id} and {again.request_id} have one key")
        await self._ended(client, request_id)

    async def _cancel_at_once(self, client: AsyncClient) -> None:
        request_id = await self._submitted(client, _request(prompts=3))
        await client.cancel(request_id)
        await self._ended(client, request_id)

    async def _cancel_at_work(self, client: AsyncClient) -> None:
        request_id = await self._submitted(client, _request(sample_steps=_LONG))
        await asyncio.sleep(random.uniform(0, 2))
        await client.cancel(request_id)
        await self._ended(client, request_id)

    async def _fail(self, client: AsyncClient) -> None:
        """Submit a render whose LoRA is gone when its turn comes; if it comes before that, the render succeeds."""
        path = await asyncio.to_thread(self._new_lora)
        loras = [{"path": path.name, "transformer": "high"}]
        request_id = await self._submitted(client, {**_request(), "loras": loras})
        path.unlink()
        await self._ended(client, request_id)

    def _new_lora(self) -> Path:
        """Write a LoRA that no Generator has in memory."""
        with TemporaryDirectory(dir=self._loras.parent) as directory:
            made = write("ai-toolkit", Path(directory), sizes=DEMO, seed=random.getrandbits(31)).path
            return made.rename(self._loras / f"{uuid4()}_high_noise.safetensors")

    async def _be_refused(self, client: AsyncClient) -> None:
        absent = [{"path": f"{uuid4()}.safetensors", "transformer": "high"}]
        try:
            await client.submit(InferenceRequest.model_validate({**_request(), "loras": absent}))
        except ServiceError:
            self.tally.refused += 1

    async def _delete(self, client: AsyncClient) -> None:
        request_id = await self._submitted(client, _request())
        await self._ended(client, request_id)
        await client.delete(request_id)
        self.tally.deleted += 1
        if (self._outputs / request_id).exists():
            self._lost(f"{request_id} was deleted, and its files were not")

    async def _submitted(self, client: AsyncClient, request: Json, key: str | None = None) -> str:
        accepted = await client.submit(InferenceRequest.model_validate(request), idempotency_key=key)
        self.tally.accepted += 1
        return accepted.request_id

    async def _ended(self, client: AsyncClient, request_id: str) -> None:
        """Wait for the end of a request, and check what there is of it."""
        try:
            status = await client.wait(request_id, timeout_s=_WITHIN_S)
        except ServiceError as error:
            self._lost(f"{request_id}: {error}")
            return
        self.tally.ends[status.status] = self.tally.ends.get(status.status, 0) + 1
        if status.status != "succeeded":
            return
        result = await client.result(request_id)
        videos = [] if result.outputs is None else result.outputs.videos
        files = [path.name for path in (self._outputs / request_id).glob("*") if path.is_file()]
        if len(videos) != 1 or not files:
            self._lost(f"{request_id} succeeded with {len(videos)} videos and the files {files}")
        if len(files) > 1:
            self._doubled(f"{request_id} has the files {files}")

    def _lost(self, what: str) -> None:
        logger.error("lost: %s", what)
        self.tally.lost.append(what)

    def _doubled(self, what: str) -> None:
        logger.error("doubled: %s", what)
        self.tally.doubled.append(what)


def _request(prompts: int = 1, **changes: Any) -> Json:
    width, height = random.choice(_SIZES)
    prompt = {"prompt": f"a fox {uuid4()}", "width": width, "height": height, "seed": random.getrandbits(31), **changes}
    return body(*[prompt] * prompts, loras=pair(random.choice(PAIRS)))
