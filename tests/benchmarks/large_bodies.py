"""Large bodies (resource exhaustion): what 200 MB of JSON, a prompt of 20 MB and a bomb of gzip cost the service.

    python -m tests.benchmarks.large_bodies

For each, sent by several clients at once: the answers, the memory of the Ingress and of Serve's proxy before, at its
highest and afterwards, and how long another client's `/health` took meanwhile, which no event loop on its way can hold
up for longer than that. Prints a table and, last, one line of JSON.
"""

import asyncio
import gzip
import json
import re
import socket
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import psutil
from rich.console import Console
from rich.table import Table

from tests.client import body
from tests.fixtures.api import UNKNOWN
from tests.service_process import ServiceProcess

MB = 10**6
CLIENTS = 4  # at once
_BETWEEN_S = 0.005
_SETTLED_S = 1.0
_PIECE = b"[]," * 20_000


@dataclass(frozen=True, slots=True)
class Attack:
    """A body in pieces, and its headers; without a Content-Length it is sent in chunks."""

    name: str
    pieces: Iterable[bytes]
    headers: str = ""
    path: str = "/v1/inference"


@dataclass(frozen=True, slots=True)
class Cost:
    """What an attack did. Memory (before, highest, after) is in MB; times are in ms."""

    attack: str
    answers: list[str]
    ingress_mb: tuple[int, int, int]
    proxy_mb: tuple[int, int, int]
    health_p99_ms: float
    health_longest_ms: float


def attacks() -> list[Attack]:
    """Return them, the largest first."""
    count = 200 * MB // len(_PIECE)
    prompt = json.dumps(body({"prompt": "woman " * (20 * MB // 6)})).encode()
    bomb = gzip.compress(b"[" + b" " * (1000 * MB), 9)
    lists = b"[" + b"[]," * (4 * MB // 3) + b"[]]"
    fields = json.dumps({**body(), "prompts": [{f"made_up_{n}": 1 for n in range(20)}] * 1000}).encode()
    return [
        Attack("200 MB of JSON", [b"["] + [_PIECE] * count, f"Content-Length: {200 * MB}\r\n"),
        Attack("200 MB in chunks", [b"["] + [_PIECE] * count),
        Attack("200 MB for a cancel", [_PIECE] * count, path=f"/v1/requests/{UNKNOWN}/cancel"),
        Attack("a prompt of 20 MB", [prompt], _length(prompt)),
        Attack("1 GB in 1 MB of gzip", [bomb], _length(bomb) + "Content-Encoding: gzip\r\n"),
        Attack("4 MB of empty lists", [lists], _length(lists)),
        Attack("20,000 unknown fields", [fields], _length(fields)),
    ]


def _length(content: bytes) -> str:
    return f"Content-Length: {len(content)}\r\n"


def _send(port: int, attack: Attack) -> str:
    """Send a body as far as the service takes it; the status of the answer."""
    chunked = "Content-Length" not in attack.headers
    head = (
        f"POST {attack.path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"{attack.headers}{'Transfer-Encoding: chunked' if chunked else 'Accept: */*'}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        try:
            connection.sendall(head.encode())
            for piece in attack.pieces:
                connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        except OSError:
            pass  # the service has answered, and closed the connection
        try:
            answer = connection.recv(100)
        except OSError as error:
            return type(error).__name__
    status = re.match(rb"HTTP/1.1 (\d{3})", answer)
    return status[1].decode() if status else "closed"


class Memory:
    """Follows the resident memory of some processes, in MB."""

    def __init__(self, processes: list[psutil.Process]) -> None:
        self._processes = processes
        self._before = self._highest = self._now()

    def look(self) -> None:
        """Record what they have now."""
        self._highest = max(self._highest, self._now())

    @property
    def figures(self) -> tuple[int, int, int]:
        """Before, at the highest, and now."""
        return self._before, self._highest, self._now()

    def _now(self) -> int:
        return sum(process.memory_info().rss for process in self._processes) // MB


async def measure(service: ServiceProcess, attack: Attack) -> Cost:
    """Send the attack from several clients while another one asks for `/health`."""
    ingress = Memory(service.replicas("Ingress"))
    proxy = Memory([process for process in service.processes() if "ProxyActor" in " ".join(process.cmdline())])
    waits: list[float] = []

    async def watch() -> None:
        async with httpx.AsyncClient(base_url=service.url, timeout=120) as client:
            while True:
                started = time.perf_counter()
                (await client.get("/health")).raise_for_status()
                waits.append(time.perf_counter() - started)
                ingress.look()
                proxy.look()
                await asyncio.sleep(_BETWEEN_S)

    watching = asyncio.create_task(watch())
    await asyncio.sleep(_SETTLED_S)
    waits.clear()
    answers = await asyncio.gather(*(asyncio.to_thread(_send, service.port, attack) for _ in range(CLIENTS)))
    await asyncio.sleep(_SETTLED_S)
    watching.cancel()
    ordered = sorted(waits)
    return Cost(
        attack=attack.name,
        answers=answers,
        ingress_mb=ingress.figures,
        proxy_mb=proxy.figures,
        health_p99_ms=round(ordered[int(0.99 * (len(ordered) - 1))] * 1000, 1),
        health_longest_ms=round(ordered[-1] * 1000, 1),
    )


def _show(costs: list[Cost]) -> None:
    table = Table(title=f"{CLIENTS} clients at once; memory in MB: before, highest, after")
    for column in ("body", "answers", "Ingress", "proxy", "/health p99", "longest"):
        table.add_column(column)
    for cost in costs:
        memory = (" ".join(map(str, figures)) for figures in (cost.ingress_mb, cost.proxy_mb))
        times = (f"{cost.health_p99_ms} ms", f"{cost.health_longest_ms} ms")
        table.add_row(cost.attack, " ".join(cost.answers), *memory, *times)
    Console(width=140).print(table)
    print(json.dumps([asdict(cost) for cost in costs]))


async def _main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        service = ServiceProcess(Path(directory))
        service.start()
        try:
            _show([await measure(service, attack) for attack in attacks()])
        finally:
            service.stop()


if __name__ == "__main__":
    asyncio.run(_main())
