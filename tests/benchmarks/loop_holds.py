"""Event-loop lag of our own making: the CPU time that one callback of the Ingress's loop takes, for each hostile body.

    python -m tests.benchmarks.loop_holds [--repeat 10]

CPU time and not wall time, so that a busy machine changes nothing. The API runs in this process, without a cluster.
For each body: the answer, the longest callback, all callbacks of one request, and what threads beside the loop took
meanwhile (those hold the interpreter's lock for at most its switch interval at a time). Prints a table and, last, one
line of JSON; times are in ms.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from serve_app.jobs.schema import migrate
from serve_app.loras.formats.bounds import MOST_TENSORS
from tests.benchmarks.attackers import bodies, bomb
from tests.client import body
from tests.fixtures.api import Api, api_over, save_pair
from tests.fixtures.web_server import WebServer, web_server

_JSON = {"Content-Type": "application/json"}
_LORA = {"transformer": "high"}


@dataclass(frozen=True, slots=True)
class Held:
    """What one body costs, in ms of CPU time."""

    body: str
    answer: int
    longest_callback: float
    loop: float
    threads: float


class Callbacks:
    """Measures what runs on the event loop of this thread."""

    def __init__(self) -> None:
        self.longest = self.total = 0.0

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Measure every callback that runs during the block."""
        run = asyncio.Handle._run

        def timed(handle: asyncio.Handle) -> None:
            started = time.thread_time()
            run(handle)
            taken = time.thread_time() - started
            self.total += taken
            self.longest = max(self.longest, taken)

        asyncio.Handle._run = timed  # type: ignore[method-assign,assignment]  # asyncio's debug mode measures wall time only
        try:
            yield
        finally:
            asyncio.Handle._run = run  # type: ignore[method-assign]


async def held(api: Api, name: str, content: list[bytes]) -> Held:
    """Send the bodies one after another, and return the median of what each costs."""
    found = []
    for each in content:
        callbacks, process, loop = Callbacks(), time.process_time(), time.thread_time()
        with callbacks.measured():
            # A task of its own: what goes on without waiting would belong to the callback that runs already.
            post = api.http.post("/v1/inference", content=each, headers=_JSON)
            answer = await asyncio.create_task(post)
        threads = (time.process_time() - process) - (time.thread_time() - loop)
        found.append((callbacks.longest, callbacks.total, threads))
    longest, total, threads = (round(1000 * sorted(column)[len(column) // 2], 1) for column in zip(*found, strict=True))
    return Held(name, answer.status_code, longest, total, threads)


def _lora(path: str) -> bytes:
    return json.dumps(body(loras=[{"path": path, **_LORA}])).encode()


def hostile(web: WebServer, loras: Path, repeat: int) -> dict[str, list[bytes]]:
    """Return the bodies, by name; those that name a file name another one each time, so that no verdict is kept."""
    content = bomb(MOST_TENSORS)
    web.pages["/bomb"] = lambda exchange, _: exchange.answer(200, content, ETag='"1"')
    for number in range(repeat):
        (loras / f"bomb_{number}.safetensors").write_bytes(content)
    numbers = range(repeat)
    return {
        "a good request": [json.dumps(body()).encode()] * repeat,
        **{name: [each] * repeat for name, each in bodies().items()},
        "header bomb, disk": [_lora(f"bomb_{number}.safetensors") for number in numbers],
        "header bomb, web": [_lora(f"{web.url}/bomb?{number}") for number in numbers],
    }


async def measure(repeat: int) -> list[Held]:
    """Return a row for each body."""
    with tempfile.TemporaryDirectory() as place, web_server() as web:
        directory = Path(place)
        save_pair(directory)
        database_url = f"sqlite:///{directory}/jobs.db"
        await asyncio.to_thread(migrate, database_url)
        args: dict[str, Any] = {"lora_private_hosts": ["127.0.0.1"], "lora_allow_http": True}
        async with api_over(directory, database_url, **args) as api:
            return [await held(api, name, each) for name, each in hostile(web, api.lora_root, repeat).items()]


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=10)
    rows = asyncio.run(measure(parser.parse_args().repeat))
    table = Table(title="ms of CPU time")
    for column in asdict(rows[0]):
        table.add_column(column)
    for row in rows:
        table.add_row(*map(str, asdict(row).values()))
    Console(width=140).print(table)
    print(json.dumps({"benchmark": "loop_holds", "rows": [asdict(row) for row in rows]}))


if __name__ == "__main__":
    main()
