"""What keys, limits and metrics cost: POST latency and videos per second of a service with them, beside one without.

    python -m tests.benchmarks.overhead [--rounds 8] [--renders 60] [--clients 16] [--proxy python haproxy]

Two services run at the same time, and rounds of the same load go to one and the other in turn, in random order, so that
whatever else the machine does meets both. The dear one needs a key for each call, counts against limits of the tenant,
and is scraped every five seconds; the bare one is open, without limits, and Ray collects no metrics of it (what is left
is that observers count). The posts of all rounds are put together.

The CPU time of the API's process is the figure that says most on a machine that does something else, too.

Prints a table and, last, one line of JSON; `ratio` is dear over bare, with the middle 90 % of a bootstrap over rounds.
"""

import argparse
import asyncio
import json
import random
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, quantiles

import httpx

from serve_app.access.keys import Scope, new_key
from serve_app.cli.database import in_store
from serve_app.jobs.store import JobStore
from serve_app.settings import Settings
from tests.benchmarks.http_load import Samples, crowd
from tests.fixtures.keys import ADMIN_KEY, bearer
from tests.service_process import ServiceProcess

SCRAPE_S = 5.0
RESAMPLES = 1000
LIMITS = {"requests_per_s": 10_000, "max_queued": 10_000, "gpu_seconds_per_day": 1e9, "max_steps": 100}


@dataclass(frozen=True, slots=True)
class Round:
    """One crowd at one service. Latencies of its posts and CPU time are in milliseconds."""

    posts: Sequence[float]
    videos_per_s: float
    api_cpu: float  # of the API for each video: its POST, and what its client asks until it is there


@dataclass(frozen=True, slots=True)
class Compared:
    """A figure of both services; `low` and `high` bound the ratio."""

    proxy: str
    figure: str
    bare: float
    dear: float
    ratio: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Target:
    """A service under load."""

    url: str
    headers: Mapping[str, str]
    service: ServiceProcess


def measure(proxy: str, options: argparse.Namespace) -> list[Compared]:
    """Run both services behind one kind of proxy, and compare them."""
    with ExitStack() as stack:
        haproxy = {"RAY_SERVE_ENABLE_HA_PROXY": "1"} if proxy == "haproxy" else {}
        targets = {
            "bare": stack.enter_context(_bare({**haproxy, **_own_ports(0)})),
            "dear": stack.enter_context(_dear({**haproxy, **_own_ports(1)})),
        }
        found: defaultdict[str, list[Round]] = defaultdict(list)
        for number in range(options.rounds + 1):
            for name in random.sample(list(targets), len(targets)):
                done = _round(targets[name], options)
                if number:  # the first is a warm-up
                    found[name].append(done)
    return _compare(proxy, found["bare"], found["dear"])


def _round(target: Target, options: argparse.Namespace) -> Round:
    samples: Samples
    before = _api_cpu_s(target.service)
    samples, videos_per_s = asyncio.run(crowd(target.url, options.clients, options.renders, 0, target.headers))
    used_s = _api_cpu_s(target.service) - before
    return Round([1000 * each for each in samples.post], videos_per_s, 1000 * used_s / options.renders)


def _api_cpu_s(service: ServiceProcess) -> float:
    """Return the CPU seconds that the API's processes have used so far."""
    times = [process.cpu_times() for process in service.replicas("Ingress")]
    return sum(each.user + each.system for each in times)


@contextmanager
def _bare(environment: Mapping[str, str]) -> Iterator[Target]:
    with tempfile.TemporaryDirectory() as directory:
        service = ServiceProcess(Path(directory), {**environment, "RAY_enable_metrics_collection": "0"}, open=True)
        service.start()
        try:
            yield Target(service.url, {}, service)
        finally:
            service.stop()


@contextmanager
def _dear(environment: Mapping[str, str]) -> Iterator[Target]:
    with tempfile.TemporaryDirectory() as directory:
        service = ServiceProcess(Path(directory), {**environment, "WAN_ADMIN_KEY": ADMIN_KEY}, limits=LIMITS)
        service.start()
        try:
            made = new_key("team-a", "a benchmark", {Scope.SUBMIT, Scope.READ})

            async def keep(store: JobStore) -> None:
                await store.keys.add(made.key)

            in_store(Settings(database_url=f"sqlite:///{directory}/var/jobs.db"), keep)
            with _scraping(service.url):
                yield Target(service.url, bearer(made.token), service)
        finally:
            service.stop()


@contextmanager
def _scraping(url: str) -> Iterator[None]:
    over = threading.Event()

    def scrape() -> None:
        with httpx.Client(base_url=url, headers=bearer(ADMIN_KEY), timeout=30) as http:
            while not over.wait(SCRAPE_S):
                http.get("/metrics").raise_for_status()

    thread = threading.Thread(target=scrape, name="scraper")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _own_ports(number: int) -> dict[str, str]:
    """Return the environment of a service whose HAProxy meets no other one on this machine."""
    place = f"{tempfile.gettempdir()}/haproxy-overhead-{number}"
    return {
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(19_101 + number),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(18_404 + number),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{place}/admin.sock",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{place}/haproxy.cfg",
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": place,
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{place}/server-state",
    }


FIGURES: Mapping[str, Callable[[Sequence[Round]], float]] = {
    "POST p50, ms": lambda rounds: _percentile(rounds, 50),
    "POST p99, ms": lambda rounds: _percentile(rounds, 99),
    "videos/s": lambda rounds: mean(each.videos_per_s for each in rounds),
    "API's CPU a video, ms": lambda rounds: mean(each.api_cpu for each in rounds),
}


def _percentile(rounds: Sequence[Round], percent: int) -> float:
    return quantiles([post for each in rounds for post in each.posts], n=100, method="inclusive")[percent - 1]


def _compare(proxy: str, bare: Sequence[Round], dear: Sequence[Round]) -> list[Compared]:
    compared = []
    for figure, of in FIGURES.items():
        ratios = [
            of(random.choices(dear, k=len(dear))) / of(random.choices(bare, k=len(bare))) for _ in range(RESAMPLES)
        ]
        low, *_, high = quantiles(ratios, n=20)
        values = (of(bare), of(dear), of(dear) / of(bare), low, high)
        compared.append(Compared(proxy, figure, *(round(value, 2) for value in values)))
    return compared


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--renders", type=int, default=60, help="of each round")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--proxy", nargs="+", choices=["python", "haproxy"], default=["haproxy"])
    options = parser.parse_args()
    rows = [asdict(row) for proxy in options.proxy for row in measure(proxy, options)]
    print("".join(f"{column:>22}" for column in rows[0]))
    for row in rows:
        print("".join(f"{value:>22}" for value in row.values()))
    print(json.dumps({"benchmark": "overhead", "rounds": options.rounds, "rows": rows}))


if __name__ == "__main__":
    main()
