"""Latency of a normal client and memory of the Ingress, before and while the service is attacked in every way at once.

    python -m tests.benchmarks.under_attack [--seconds 30] [--proxy python] [--niceness 19] [--each]

The attacks: bodies of 64 MB, prompts of a megabyte, a thousand wrong LoRAs, a million lists, 70,000 keys,
header bombs on disk and on a web server, sources that send a byte a second, answers with hostile headers, heads and
bodies that are never finished, accepted files that are replaced by a FIFO. A normal client asks for /health ten times a
second and posts two renders a second.

The attackers are a process of their own, which sends as fast as it is answered and on a machine of two cores would take
one of them; real attackers bring their own. So it is niced: it gets what the service leaves of the two cores. With
`--niceness 0` it competes with the service as an equal.

Prints a table and, last, one line of JSON: milliseconds, the share of a core that each process used, and the resident
memory of the Ingress in MiB. With `--each`, each attack runs alone, and the table has the CPU time in milliseconds that
one answer to it costs.
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
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from tests.benchmarks.attackers import NAMES, NORMAL, Row
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


@dataclass(frozen=True, slots=True)
class Setting:
    """How to measure: `niceness` is the attackers'."""

    proxy: str
    seconds: float
    niceness: int


@contextmanager
def attackers(service: ServiceProcess, setting: Setting, *names: str) -> Iterator[Answers]:
    """Have the block run while the service is attacked, in all ways or in those; the answers are there at its end."""
    answers: Answers = {}
    module = [sys.executable, "-m", "tests.benchmarks.attackers"]
    arguments = [service.url, str(service.directory / "loras"), str(setting.seconds + _MARGIN_S), *names]
    command = [*module, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        be_nice(process.pid, setting.niceness)
        assert process.stdout is not None
        process.stdout.readline()
        yield answers
        answers |= json.loads(process.stdout.read())


def be_nice(pid: int, niceness: int) -> None:
    """Set the niceness of a process that leads a session, among all others of this machine."""
    psutil.Process(pid).nice(niceness)
    group = Path(f"/proc/{pid}/autogroup")  # where Linux has it, niceness counts within a session only
    if group.exists():
        group.write_text(str(niceness))


class Used:
    """The CPU time that the processes on a client's way have used since this was made, in seconds."""

    def __init__(self, service: ServiceProcess) -> None:
        self.ways = {"ingress": service.replicas("Ingress"), "proxy": service.replicas("ProxyActor")}
        self._before = self._now()

    def _now(self) -> dict[str, float]:
        return {name: sum(sum(each.cpu_times()[:2]) for each in found) for name, found in self.ways.items()}

    def since(self) -> dict[str, float]:
        """Return it by the name of the process."""
        now = self._now()
        return {name: now[name] - self._before[name] for name in now}


def used(service: ServiceProcess, seconds: float) -> Row:
    """Measure a normal client, and what the processes on its way use meanwhile."""
    before = Used(service)
    row = asyncio.run(normal(service.url, seconds))
    cores = {f"{name}_cores": round(cpu_s / seconds, 2) for name, cpu_s in before.since().items()}
    return {**row, **cores, "ingress_mib": max(process.memory_info().rss for process in before.ways["ingress"]) >> 20}


@contextmanager
def serving(proxy: str) -> Iterator[ServiceProcess]:
    """Run a service that reads LoRAs from this machine's web servers."""
    with tempfile.TemporaryDirectory() as directory:
        environment = {"RAY_SERVE_ENABLE_HA_PROXY": "1" if proxy == "haproxy" else "0"}
        allowed: Row = {"lora_private_hosts": ["127.0.0.1"], "lora_allow_http": True}
        service = ServiceProcess(Path(directory), environment, **allowed)
        service.start()
        try:
            yield service
        finally:
            service.stop()


def measure(setting: Setting) -> tuple[list[Row], Answers]:
    """Return a row before and one during the attack, and the answers to it."""
    with serving(setting.proxy) as service:
        quiet = {"when": "quiet", **used(service, setting.seconds)}
        with attackers(service, setting) as answers:
            attacked = {"when": "attacked", **used(service, setting.seconds)}
        return [quiet, attacked], answers


def measure_each(setting: Setting) -> tuple[list[Row], Answers]:
    """Return a row for each attack alone: a normal client meanwhile, and the CPU time of one answer in ms."""
    rows: list[Row] = []
    answers: Answers = {}
    with serving(setting.proxy) as service:
        for name in NAMES:
            before = Used(service)
            with attackers(service, setting, name) as found:
                row = asyncio.run(normal(service.url, setting.seconds))
            count = sum(found[name].values())
            cost = {f"{way}_ms": round(1000 * cpu_s / max(count, 1), 1) for way, cpu_s in before.since().items()}
            rows.append({"when": name, **row, "answers": count, **cost})
            answers |= found
    return rows, answers


def report(setting: Setting, rows: Sequence[Row], answers: Answers) -> None:
    """Print what was measured."""
    columns = list(rows[0])
    print("  ".join(f"{column:>21}" if column == "when" else f"{column:>13}" for column in columns))
    for row in rows:
        print("  ".join(f"{row[column]:>21}" if column == "when" else f"{row[column]:>13}" for column in columns))
    for name, found in answers.items():
        print(
            f"{name:>20}: "
            + ", ".join(f"{count} x {'closed' if status == '0' else status}" for status, count in sorted(found.items()))
        )
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "ray": version("ray")}
    print(
        json.dumps(
            {"benchmark": "under_attack", "setting": machine | asdict(setting), "rows": rows, "answers": answers}
        )
    )


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30, help="of each row")
    parser.add_argument("--proxy", choices=["python", "haproxy"], default="python")
    parser.add_argument("--niceness", type=int, default=19, help="of the attackers")
    parser.add_argument("--each", action="store_true", help="each attack alone")
    options = parser.parse_args()
    setting = Setting(options.proxy, options.seconds, options.niceness)
    report(setting, *(measure_each if options.each else measure)(setting))


if __name__ == "__main__":
    main()
