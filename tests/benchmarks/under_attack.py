"""Latency of a normal client and memory of the Ingress, before and while the service is attacked in every way at once.

    python -m tests.benchmarks.under_attack [--seconds 30] [--proxy python]

The attacks: bodies of 64 MB, prompts of a megabyte, a thousand wrong LoRAs, header bombs on disk and on a web server,
sources that send a byte a second, answers with hostile headers, heads and bodies that are never finished, accepted
files that are replaced by a FIFO. A normal client asks for /health ten times a second and posts two renders a second.
Prints a table and, last, one line of JSON: milliseconds, and the resident memory of the Ingress in MiB.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import aiohttp

from tests.benchmarks.http_load import BODY, PROMPT, milliseconds
from tests.fixtures.web_server import Exchange, WebServer, web_server
from tests.service_process import ServiceProcess

HEALTH_EVERY_S = 0.1
POST_EVERY_S = 0.5
IDLE_CONNECTIONS = 50
Row = dict[str, Any]
NORMAL: Row = {**BODY, "prompts": [PROMPT]}
Attack = Callable[[aiohttp.ClientSession], Awaitable[int]]


def bomb(tensors: int) -> bytes:
    """A safetensors file of empty tensors."""
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = json.dumps({f"blocks.{number}.ffn.0.lora_A.weight": entry for number in range(tensors)}).encode()
    return len(header).to_bytes(8, "little") + header


def request(path: str, **prompt: object) -> Row:
    loras = [{"path": path, "transformer": side} for side in ("high", "low")]
    return {**BODY, "loras": loras, "prompts": [{**PROMPT, **prompt}]}


class Attacks:
    """One coroutine for each way to attack; each returns the status of one answer, and is called again and again."""

    def __init__(self, service: ServiceProcess, web: WebServer) -> None:
        self._service = service
        self._web = web
        self._bomb = bomb(20_000)
        loras = service.directory / "loras"
        (loras / "bomb.safetensors").write_bytes(self._bomb)
        (loras / "long_bomb.safetensors").write_bytes(bomb(600_000))
        web.pages["/bomb"] = lambda exchange, _: exchange.answer(200, self._bomb, ETag='"1"')
        web.pages["/slow"] = _a_byte_a_second
        web.pages["/hostile"] = _hostile

    def all(self) -> dict[str, tuple[Attack, int]]:
        """By name: the attack, and how many at once."""
        return {
            "body of 64 MB": (self.huge_body, 2),
            "prompt of 1 MB": (self.long_prompt, 2),
            "1,000 wrong LoRAs": (self.many_errors, 2),
            "header bomb, disk": (self.disk_bomb, 2),
            "header bomb, web": (self.web_bomb, 2),
            "slow source": (self.slow_source, 16),
            "hostile headers": (self.hostile_headers, 4),
            "half a head": (self.half_head, IDLE_CONNECTIONS),
            "half a body": (self.half_body, IDLE_CONNECTIONS),
            "swapped file": (self.swapped_file, 1),
        }

    async def huge_body(self, http: aiohttp.ClientSession) -> int:
        return await _status(http, data=b"[" + b"0," * (32 << 20) + b"0]")

    async def long_prompt(self, http: aiohttp.ClientSession) -> int:
        return await _status(http, json=request("demo/x.safetensors", prompt="fox " * (1 << 18)))

    async def many_errors(self, http: aiohttp.ClientSession) -> int:
        return await _status(http, json={**BODY, "loras": [{"path": 7, "transformer": "x" * 1000}] * 1000})

    async def disk_bomb(self, http: aiohttp.ClientSession) -> int:
        return await _status(http, json=request(random.choice(["bomb.safetensors", "long_bomb.safetensors"])))

    async def web_bomb(self, http: aiohttp.ClientSession) -> int:
        return await _status(http, json=request(f"{self._web.url}/bomb?{random.random()}"))

    async def slow_source(self, http: aiohttp.ClientSession) -> int:
        return await _status(http, json=request(f"{self._web.url}/slow?{random.random()}"))

    async def hostile_headers(self, http: aiohttp.ClientSession) -> int:
        return await _status(http, json=request(f"{self._web.url}/hostile?{random.random()}"))

    async def half_head(self, _http: aiohttp.ClientSession) -> int:
        return await self._unfinished(b"POST /v1/inference HTTP/1.1\r\nHost: x\r\n")

    async def half_body(self, _http: aiohttp.ClientSession) -> int:
        head = b"POST /v1/inference HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n"
        return await self._unfinished(head + b'{"model":')

    async def swapped_file(self, http: aiohttp.ClientSession) -> int:
        """Post a pair, and put FIFOs in the place of its files."""
        folder = self._service.directory / "loras"
        names = []
        for item in NORMAL["loras"]:
            content = await asyncio.to_thread((folder / item["path"]).read_bytes)
            names.append(f"swapped_{random.random()}_{item['transformer']}_noise.safetensors")
            await asyncio.to_thread((folder / names[-1]).write_bytes, content)
        loras = [{**item, "path": name} for item, name in zip(NORMAL["loras"], names, strict=True)]
        status = await _status(http, json={**BODY, "loras": loras, "prompts": [PROMPT]})
        for name in names:
            (folder / name).unlink()
            os.mkfifo(folder / name)
        await asyncio.sleep(1)
        return status

    async def _unfinished(self, sent: bytes) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._service.port)
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


async def _status(http: aiohttp.ClientSession, **sent: Any) -> int:
    async with http.post("/v1/inference", **sent) as response:
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


async def normal(url: str, seconds: float) -> Row:
    """Measure a client that does nothing unusual."""
    health: list[float] = []
    post: list[float] = []
    failed = 0
    end = time.monotonic() + seconds

    async def every(interval_s: float, into: list[float], call: Callable[[], Any]) -> None:
        nonlocal failed
        while time.monotonic() < end:
            started = time.perf_counter()
            async with call() as response:
                await response.read()
                failed += response.status != 200
            into.append(time.perf_counter() - started)
            await asyncio.sleep(interval_s)

    async with aiohttp.ClientSession(url) as http:
        await asyncio.gather(
            every(HEALTH_EVERY_S, health, lambda: http.get("/health")),
            every(POST_EVERY_S, post, lambda: http.post("/v1/inference", json=NORMAL)),
        )
    return {
        "health_p50_ms": milliseconds(health, 50),
        "health_p99_ms": milliseconds(health, 99),
        "post_p50_ms": milliseconds(post, 50),
        "post_p99_ms": milliseconds(post, 99),
        "failed": failed,
    }


def ingress_mib(service: ServiceProcess) -> int:
    """The resident memory of the Ingress."""
    return max(process.memory_info().rss for process in service.replicas("Ingress")) >> 20


async def attacked(service: ServiceProcess, seconds: float) -> tuple[Row, dict[str, Counter[int]]]:
    answers: dict[str, Counter[int]] = {}
    with web_server() as web:
        attacks = Attacks(service, web)
        async with aiohttp.ClientSession(service.url, connector=aiohttp.TCPConnector(limit=0)) as http:
            tasks = [
                asyncio.create_task(repeat(attack, http, answers.setdefault(name, Counter())))
                for name, (attack, at_once) in attacks.all().items()
                for _ in range(at_once)
            ]
            row = await normal(service.url, seconds)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    return row, answers


def measure(proxy: str, seconds: float) -> tuple[list[Row], dict[str, Counter[int]]]:
    with tempfile.TemporaryDirectory() as directory:
        environment = {"RAY_SERVE_ENABLE_HA_PROXY": "1" if proxy == "haproxy" else "0"}
        allowed: Row = {"lora_private_hosts": ["127.0.0.1"], "lora_allow_http": True}
        service = ServiceProcess(Path(directory), environment, **allowed)
        service.start()
        try:
            quiet = {"when": "quiet", **asyncio.run(normal(service.url, seconds)), "ingress_mib": ingress_mib(service)}
            row, answers = asyncio.run(attacked(service, seconds))
            return [quiet, {"when": "attacked", **row, "ingress_mib": ingress_mib(service)}], answers
        finally:
            service.stop()


def report(rows: Sequence[Row], answers: dict[str, Counter[int]]) -> None:
    columns = list(rows[0])
    print("  ".join(f"{column:>14}" for column in columns))
    for row in rows:
        print("  ".join(f"{row[column]:>14}" for column in columns))
    for name, found in answers.items():
        print(f"{name:>20}: " + ", ".join(f"{count} x {status or 'closed'}" for status, count in sorted(found.items())))
    setting = {"cores": os.cpu_count(), "machine": platform.machine(), "ray": version("ray")}
    print(json.dumps({"benchmark": "under_attack", "setting": setting, "rows": rows, "answers": answers}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--proxy", choices=["python", "haproxy"], default="python")
    options = parser.parse_args()
    report(*measure(options.proxy, options.seconds))


if __name__ == "__main__":
    main()
