"""Attackers of the service (denial of service): every way at once, in a process of their own.

    python -m tests.benchmarks.attackers URL LORA_ROOT SECONDS [ATTACK ...]

Without names of attacks, all of them run. Says "attacking" once it begins, and at its end one line of JSON: the
statuses of the answers, by attack.
"""

import asyncio
import json
import os
import random
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from serve_app.loras.formats.bounds import MOST_TENSORS
from tests.benchmarks.http_load import BODY, PROMPT
from tests.fixtures.web_server import Exchange, WebServer, web_server

IDLE_CONNECTIONS = 50
Row = dict[str, Any]
NORMAL: Row = {**BODY, "prompts": [PROMPT]}
Attack = Callable[[aiohttp.ClientSession], Awaitable[int]]
_JSON = {"Content-Type": "application/json"}


def bomb(tensors: int) -> bytes:
    """Return a safetensors file of empty tensors."""
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = json.dumps({f"blocks.{number}.ffn.0.lora_A.weight": entry for number in range(tensors)}).encode()
    return len(header).to_bytes(8, "little") + header


def request(path: str, **prompt: object) -> Row:
    loras = [{"path": path, "transformer": side} for side in ("high", "low")]
    return {**BODY, "loras": loras, "prompts": [{**PROMPT, **prompt}]}


def bodies() -> dict[str, bytes]:
    """Return the bodies that hurt by what they are, by name."""
    wrong = {**BODY, "loras": [{"path": 7, "transformer": "x" * 1000}] * 1000}
    unknown = {**NORMAL, "prompts": [{f"made_up_{n}": 1 for n in range(20)}] * 1000}
    return {
        "body of 64 MB": b"[" + b"0," * (32 << 20) + b"0]",
        "prompt of 1 MB": _json(request("demo/x.safetensors", prompt="fox " * (1 << 18))),
        "4 MiB of empty lists": b"[" + b"[]," * ((4 << 20) // 3 - 1) + b"[]]",
        "1,000 wrong LoRAs": _json(wrong),
        "20,000 unknown fields": _json(unknown),
        "70,000 keys": _json({**NORMAL, **{f"made_up_{n}": 1 for n in range(70_000)}}),
    }


NAMES = (
    *("body of 64 MB", "prompt of 1 MB", "4 MiB of empty lists", "1,000 wrong LoRAs", "20,000 unknown fields"),
    *("70,000 keys", "header bomb, disk", "header bomb, web", "slow source", "hostile headers", "half a head"),
    *("half a body", "swapped file"),
)


class Attacks:
    """One coroutine for each way to attack; each returns the status of one answer, and is called again and again."""

    def __init__(self, url: str, loras: Path, web: WebServer) -> None:
        self._port = urlsplit(url).port
        self._loras = loras
        self._web = web
        self._bomb = bomb(MOST_TENSORS)  # as many as are parsed at all
        self._bodies = bodies()
        (loras / "bomb.safetensors").write_bytes(self._bomb)
        (loras / "long_bomb.safetensors").write_bytes(bomb(600_000))
        web.pages["/bomb"] = lambda exchange, _: exchange.answer(200, self._bomb, ETag='"1"')
        web.pages["/slow"] = _a_byte_a_second
        web.pages["/hostile"] = _hostile

    def all(self) -> dict[str, tuple[Attack, int]]:
        """By its name among `NAMES`: the attack, and how many at once."""
        return {
            **{name: (partial(_status, body=body), 2) for name, body in self._bodies.items()},
            "header bomb, disk": (self.disk_bomb, 2),
            "header bomb, web": (self.web_bomb, 2),
            "slow source": (self.slow_source, 16),
            "hostile headers": (self.hostile_headers, 4),
            "half a head": (self.half_head, IDLE_CONNECTIONS),
            "half a body": (self.half_body, IDLE_CONNECTIONS),
            "swapped file": (self.swapped_file, 1),
        }

    async def disk_bomb(self, http: aiohttp.ClientSession) -> int:
        return await _status(http, _json(request(random.choice(["bomb.safetensors", "long_bomb.safetensors"]))))

    async def web_bomb(self, http: aiohttp.ClientSession) -> int:
        return await _status(http, _json(request(f"{self._web.url}/bomb?{random.random()}")))

    async def slow_source(self, http: aiohttp.ClientSession) -> int:
        return await _status(http, _json(request(f"{self._web.url}/slow?{random.random()}")))

    async def hostile_headers(self, http: aiohttp.ClientSession) -> int:
        return await _status(http, _json(request(f"{self._web.url}/hostile?{random.random()}")))

    async def half_head(self, _http: aiohttp.ClientSession) -> int:
        return await self._unfinished(b"POST /v1/inference HTTP/1.1\r\nHost: x\r\n")

    async def half_body(self, _http: aiohttp.ClientSession) -> int:
        head = b"POST /v1/inference HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n"
        return await self._unfinished(head + b'{"model":')

    async def swapped_file(self, http: aiohttp.ClientSession) -> int:
        """Post a pair, and put FIFOs in the place of its files."""
        names = []
        for item in NORMAL["loras"]:
            content = await asyncio.to_thread((self._loras / item["path"]).read_bytes)
            names.append(f"swapped_{random.random()}_{item['transformer']}_noise.safetensors")
            await asyncio.to_thread((self._loras / names[-1]).write_bytes, content)
        loras = [{**item, "path": name} for item, name in zip(NORMAL["loras"], names, strict=True)]
        status = await _status(http, _json({**BODY, "loras": loras, "prompts": [PROMPT]}))
        for name in names:
            (self._loras / name).unlink()
            os.mkfifo(self._loras / name)
        await asyncio.sleep(1)
        return status

    async def _unfinished(self, sent: bytes) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(sent)
            answer = await reader.read(12)
            return int(answer[9:12] or 0)
        finally:
            writer.close()


def _a_byte_a_second(exchange: Exchange, _count: int) -> None:
    exchange.start(206, ETag='"1"', Content_Length="262144", Content_Range="bytes 0-262143/400000")
    with suppress(OSError):
        while not exchange.server.over.wait(1):
            exchange.body(b"x")


def _hostile(exchange: Exchange, count: int) -> None:
    digits = "9" * 5000
    if count % 2:
        exchange.answer(206, b"x", Content_Range=f"bytes {digits}-{digits}/{digits}")
    else:
        exchange.answer(503, Retry_After="9" * 400)


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


async def _status(http: aiohttp.ClientSession, body: bytes) -> int:
    async with http.post("/v1/inference", data=body, headers=_JSON) as response:
        await response.read()
        return response.status


async def repeat(attack: Attack, http: aiohttp.ClientSession, answers: Counter[int]) -> None:
    """Attack until canceled; 0 counts connections that were closed without an answer."""
    while True:
        try:
            answers[await attack(http)] += 1
        except (OSError, aiohttp.ClientError, asyncio.IncompleteReadError, ValueError):
            answers[0] += 1
        await asyncio.sleep(0.05)


async def attack(url: str, loras: Path, seconds: float, names: Sequence[str]) -> Mapping[str, Counter[int]]:
    """Attack in these ways at once, or in every way; return the answers, by attack."""
    answers: dict[str, Counter[int]] = {}
    with web_server() as web:
        attacks = Attacks(url, loras, web).all()
        print("attacking", flush=True)
        async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=0)) as http:
            tasks = [
                asyncio.create_task(repeat(attack, http, answers.setdefault(name, Counter())))
                for name, (attack, at_once) in attacks.items()
                if not names or name in names
                for _ in range(at_once)
            ]
            await asyncio.sleep(seconds)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    return answers


if __name__ == "__main__":
    url, loras, seconds, *names = sys.argv[1:]
    print(json.dumps(asyncio.run(attack(url, Path(loras), float(seconds), names))))
