"""What a long queue costs: latency of POST, of status and of one dispatch decision, by the renders that wait.

    python -m tests.benchmarks.queue_depth [--depths 0 10000 100000] [--samples 300] [--tenants 8] [--prompts 1000]
                                           [--databases sqlite postgresql]

The API runs in this process on real job stores, one for each depth: SQLite files, and databases of a PostgreSQL server.
Each depth is asked in turn, so that whatever else the machine does meets all of them alike. What waits came in requests
of `--prompts` renders. Prints a table, how much each figure grew from the first depth on, and, last, one line of JSON.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
from sqlalchemy import func, select

from deployments.scheduling.chooser import Chooser
from deployments.scheduling.residency import FleetMemory
from serve_app.jobs.records import NewRequest
from serve_app.jobs.schema import migrate
from serve_app.jobs.tables import queue_totals
from serve_app.settings import Settings
from tests.benchmarks.http_load import milliseconds
from tests.client import body
from tests.fixtures.api import LEASE_S, Api, api_over, save_pair
from tests.fixtures.results import make_output
from tests.fixtures.specs import MODEL, make_spec
from tests.fixtures.store import KINDS, connect
from tests.postgres_server import PostgresServer

PAIRS = [f"pair{number}" for number in range(16)]
COST_S = 10.0
REPLICA = "replica"
WARM_UP = 10

Row = dict[str, Any]
NewDatabase = Callable[[str], str]


@dataclass(frozen=True)
class Workload:
    """What waits, and how it came."""

    tenants: Sequence[str]
    prompts: int  # of each request
    chance: random.Random

    def request(self, prompts: int) -> NewRequest:
        """Return renders of some tenant with some pair."""
        spec = make_spec(pair=self.chance.choice(PAIRS))
        return NewRequest(
            id=str(uuid4()),
            model=MODEL,
            created_at=time.time(),
            specs=(spec,) * prompts,
            costs=(COST_S,) * prompts,
            tenant=self.tenant(),
        )

    def tenant(self) -> str:
        return self.chance.choice(self.tenants)


class Probe:
    """One store with a queue of one depth, and how long it took to do things there."""

    def __init__(self, api: Api, workload: Workload, depth: int) -> None:
        self._api = api
        self._workload = workload
        self._depth = depth
        fleet = FleetMemory()
        ready = [make_spec(pair=pair).pair_key for pair in PAIRS]
        fleet.saw({REPLICA: ready[:2], "other": ready[2:4], "another": ready[4:6]})
        self._chooser = Chooser(api.store, MODEL, fleet, Settings())
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)

    async def fill(self) -> None:
        whole, rest = divmod(self._depth, self._workload.prompts)
        for prompts in [*[self._workload.prompts] * whole, *[rest] * bool(rest)]:
            await self._api.store.requests.submit(self._workload.request(prompts))

    async def once(self) -> None:
        """Ask everything once; afterwards as many wait as before."""
        request_id = await self._post()
        await self._status(request_id)
        await self._api.store.requests.cancel(request_id)
        await self._decide()

    async def _post(self) -> str:
        # For the status that follows, too: a tenant sees its own requests only.
        self._api.http.headers["X-Tenant"] = self._workload.tenant()
        started = time.perf_counter()
        answer = await self._api.http.post("/v1/inference", json=body())
        self.seconds["post"].append(time.perf_counter() - started)
        request_id: str = answer.raise_for_status().json()["request_id"]
        return request_id

    async def _status(self, request_id: str) -> None:
        """Of a request at the end of its line, whose position takes the longest to count."""
        started = time.perf_counter()
        await self._api.status(request_id)
        self.seconds["status"].append(time.perf_counter() - started)

    async def _decide(self) -> None:
        """Choose and claim for a replica that was won; one render comes for the one that goes."""
        await self._api.store.requests.submit(self._workload.request(1))
        started = time.perf_counter()
        claim = await self._chooser.claim_for(REPLICA, LEASE_S)
        self.seconds["decide"].append(time.perf_counter() - started)
        assert claim is not None
        await self._api.store.claims.succeed(claim, make_output(claim))
        self._chooser.ended(claim, COST_S)

    def row(self, kind: str) -> Row:
        figures = {
            f"{what}_p{percentile}_ms": milliseconds(seconds[WARM_UP:], percentile)
            for what, seconds in self.seconds.items()
            for percentile in (50, 99)
        }
        return {"database": kind, "queued": self._depth, "sums": sums(self._api.database_url), **figures}


def sums(url: str) -> int:
    """Return rows that the totals of the queue take."""
    with connect(url) as connection:
        return connection.execute(select(func.count()).select_from(queue_totals)).scalar_one()


def vacuum(url: str) -> None:
    """Do what PostgreSQL does by itself within a minute of so many writes."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")


async def measure(kind: str, directory: Path, depths: Sequence[int], workload: Workload, samples: int) -> list[Row]:
    async with AsyncExitStack() as stack:
        new_database = stack.enter_context(databases(kind, directory))
        probes = []
        for depth in depths:
            url = new_database(f"depth{depth}")
            migrate(url)
            api = await stack.enter_async_context(api_over(directory, url, max_queued=None, trust_tenant_header=True))
            probes.append(Probe(api, workload, depth))
            await probes[-1].fill()
            if kind == "postgresql":
                vacuum(url)
        for _ in range(WARM_UP + samples):
            for probe in probes:
                await probe.once()
        return [probe.row(kind) for probe in probes]


@contextmanager
def databases(kind: str, directory: Path) -> Iterator[NewDatabase]:
    """Make empty databases of that kind, by name; their URLs."""
    if kind == "sqlite":
        yield lambda name: f"sqlite:///{directory}/{name}.db"
        return
    server = PostgresServer(directory / "postgres")
    server.start()
    try:
        yield server.create_database
    finally:
        server.stop()


def measure_own(kind: str, depths: Sequence[int], workload: Workload, samples: int) -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        save_pair(directory)
        return asyncio.run(measure(kind, directory, depths, workload, samples))


def growth(rows: list[Row]) -> list[Row]:
    """Return each row's figures as factors of those at the first depth on the same database."""
    first = {row["database"]: row for row in reversed(rows)}
    return [
        {
            key: round(value / first[row["database"]][key], 2) if key.endswith("_ms") else value
            for key, value in row.items()
        }
        for row in rows
    ]


def show(rows: list[Row]) -> None:
    print("  ".join(f"{column:>13}" for column in rows[0]))
    for row in rows:
        print("  ".join(f"{value:>13}" for value in row.values()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depths", type=int, nargs="+", default=[0, 10_000, 100_000])
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--tenants", type=int, default=8)
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--databases", nargs="+", choices=KINDS, default=list(KINDS))
    options = parser.parse_args()
    tenants = [f"tenant{number}" for number in range(options.tenants)]
    workload = Workload(tenants, options.prompts, random.Random(1))
    rows = [row for kind in options.databases for row in measure_own(kind, options.depths, workload, options.samples)]
    show(rows)
    print("times the first depth of the same database:")
    show(growth(rows))
    setting = {
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "tenants": options.tenants,
        "prompts": options.prompts,
    }
    print(json.dumps({"benchmark": "queue_depth", "setting": setting, "rows": rows, "growth": growth(rows)}))


if __name__ == "__main__":
    main()
