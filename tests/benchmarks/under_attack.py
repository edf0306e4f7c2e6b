"""Latency of a normal client and memory of the Ingress, before and while the service is attacked in every way at once.

    python -m tests.benchmarks.under_attack [--seconds 30] [--proxy python]

The attacks: bodies of 64 MB, prompts of a megabyte, a thousand wrong LoRAs, a million lists, 70,000 keys,
header bombs on disk and on a web server, sources that send a byte a second, answers with hostile headers, heads and
bodies that are never finished, accepted files that are replaced by a FIFO. A normal client asks for /health ten times a
second and posts two renders a second. The attackers are a process of their own, so that what they cost their own event
loop is not measured as the service's. Prints a table and, last, one line of JSON: milliseconds, the share of a core
that each process used, and the resident memory of the Ingress in MiB.
"""

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from tests.benchmarks.attackers import NORMAL, Row
from tests.benchmarks.http_load import milliseconds
from tests.service_process import ServiceProcess

HEALTH_EVERY_S = 0.1
POST_EVERY_S = 0.5
_MARGIN_S = 2.0  # so that the attack lasts as long as what is measured
Answers = dict[str, dict[str, int]]


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


@contextmanager
def attackers(service: ServiceProcess, seconds: float) -> Iterator[Answers]:
    """Have the block run while the service is attacked; the answers to the attacks are there once it has ended."""
    answers: Answers = {}
    module = [sys.executable, "-m", "tests.benchmarks.attackers"]
    command = [*module, service.url, str(service.directory / "loras"), str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield answers
        answers |= json.loads(process.stdout.read())


def used(service: ServiceProcess, seconds: float) -> Row:
    """Measure a normal client, and what the processes on its way use meanwhile."""
    ways = {"ingress": service.replicas("Ingress"), "proxy": service.replicas("ProxyActor")}
    before = {name: _cpu_s(processes) for name, processes in ways.items()}
    row = asyncio.run(normal(service.url, seconds))
    cores = {f"{name}_cores": round((_cpu_s(ways[name]) - before[name]) / seconds, 2) for name in ways}
    return {**row, **cores, "ingress_mib": max(process.memory_info().rss for process in ways["ingress"]) >> 20}


def _cpu_s(processes: Sequence[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def measure(proxy: str, seconds: float) -> tuple[list[Row], Answers]:
    """Return a row before and one during the attack, and the answers to it."""
    with tempfile.TemporaryDirectory() as directory:
        environment = {"RAY_SERVE_ENABLE_HA_PROXY": "1" if proxy == "haproxy" else "0"}
        allowed: Row = {"lora_private_hosts": ["127.0.0.1"], "lora_allow_http": True}
        service = ServiceProcess(Path(directory), environment, **allowed)
        service.start()
        try:
            quiet = {"when": "quiet", **used(service, seconds)}
            with attackers(service, seconds + _MARGIN_S) as answers:
                attacked = {"when": "attacked", **used(service, seconds)}
            return [quiet, attacked], answers
        finally:
            service.stop()


def report(rows: Sequence[Row], answers: Answers) -> None:
    columns = list(rows[0])
    print("  ".join(f"{column:>14}" for column in columns))
    for row in rows:
        print("  ".join(f"{row[column]:>14}" for column in columns))
    for name, found in answers.items():
        print(
            f"{name:>20}: "
            + ", ".join(f"{count} x {'closed' if status == '0' else status}" for status, count in sorted(found.items()))
        )
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
