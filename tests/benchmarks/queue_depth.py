"""What a long queue costs: latency of POST, of status and of one dispatch decision, by the renders that wait.

    python -m tests.benchmarks.queue_depth [--depths 0 10000 100000] [--samples 300] [--databases sqlite postgresql]

The API runs in this process on a real job store: an SQLite file, and a PostgreSQL server of its own. What waits is of
eight tenants and sixteen pairs. Prints a table, how much each figure grew from the first depth on, and, last, one line
of JSON.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy import func, select, text

from deployments.choosing import Chooser
from deployments.fleet import FleetMemory
from serve_app.jobs.database import migrate
from serve_app.jobs.records import Claim, NewRequest, Output
from serve_app.jobs.store import JobStore
from serve_app.jobs.tables import queue_totals
from serve_app.settings import Settings
from tests.benchmarks.http_load import milliseconds
from tests.client import body
from tests.fixtures.api import LEASE_S, MODEL, Api, api_over, save_pair
from tests.fixtures.specs import make_spec
from tests.fixtures.store import KINDS, connect
from tests.postgres_server import PostgresServer

TENANTS = [f"tenant{number}" for number in range(8)]
PAIRS = [f"pair{number}" for number in range(16)]
PER_REQUEST = 1000
COST_S = 10.0
REPLICA = "replica"

Row = dict[str, Any]


def request(chance: random.Random, prompts: int) -> NewRequest:
    """Renders of some tenant with some pair."""
    spec = make_spec(pair=chance.choice(PAIRS))
    return NewRequest(
        id=str(uuid4()),
        model=MODEL,
        created_at=time.time(),
        specs=(spec,) * prompts,
        costs=(COST_S,) * prompts,
        tenant=chance.choice(TENANTS),
    )


async def fill(store: JobStore, depth: int, chance: random.Random) -> None:
    missing = depth - (await store.queue.load()).queued.renders
    for done in range(0, missing, PER_REQUEST):
        await store.submit(request(chance, min(PER_REQUEST, missing - done)))


async def posts_and_status(api: Api, samples: int, chance: random.Random) -> tuple[list[float], list[float]]:
    """Seconds of each POST and of each status of what was posted, which stands at the end of its line."""
    ids, post, status = [], [], []
    for _ in range(samples):
        started = time.perf_counter()
        answer = await api.http.post("/v1/inference", json=body(), headers={"X-Tenant": chance.choice(TENANTS)})
        post.append(time.perf_counter() - started)
        ids.append(answer.raise_for_status().json()["request_id"])
    for request_id in ids:
        started = time.perf_counter()
        await api.status(request_id)
        status.append(time.perf_counter() - started)
    for request_id in ids:
        await api.store.cancel(request_id)
    return post, status


async def decisions(store: JobStore, samples: int, chance: random.Random) -> list[float]:
    """Seconds of each choice and claim for a replica that was won; one render comes for each that goes."""
    fleet = FleetMemory()
    ready = [make_spec(pair=pair).pair_key for pair in PAIRS]
    fleet.saw({REPLICA: ready[:2], "other": ready[2:4], "another": ready[4:6]})
    chooser = Chooser(store, fleet, Settings())
    taken = []
    for _ in range(samples):
        await store.submit(request(chance, 1))
        started = time.perf_counter()
        claim = await chooser.claim_for(REPLICA, LEASE_S)
        taken.append(time.perf_counter() - started)
        assert claim is not None
        await store.succeed(claim, _output(claim))
        chooser.ended(claim, COST_S)
    return taken


def _output(claim: Claim) -> Output:
    return Output(
        name=f"{claim.request_id}/0-1.mp4",
        format=claim.spec.output_format,
        width=claim.spec.width,
        height=claim.spec.height,
        num_frames=claim.spec.num_frames,
        fps=claim.spec.fps,
        seed=claim.spec.seed,
        metadata={},
    )


async def measure(kind: str, directory: Path, url: str, depths: list[int], samples: int) -> list[Row]:
    chance = random.Random(1)
    rows = []
    async with api_over(directory, url, max_queued=None, trust_tenant_header=True) as api:
        await posts_and_status(api, 20, chance)  # warm-up: connections, compiled statements
        await decisions(api.store, 20, chance)
        for depth in depths:
            await fill(api.store, depth, chance)
            sums = settle(url)
            post, status = await posts_and_status(api, samples, chance)
            figures = {"post": post, "status": status, "decide": await decisions(api.store, samples, chance)}
            rows.append({"database": kind, "queued": depth, "sums": sums, **percentiles(figures)})
    return rows


def settle(url: str) -> int:
    """Let PostgreSQL count what it holds, as it does by itself within a minute; rows that the sums take now."""
    with connect(url) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("ANALYZE"))
        return connection.execute(select(func.count()).select_from(queue_totals)).scalar_one()


def percentiles(figures: dict[str, list[float]]) -> Row:
    return {
        f"{what}_p{percentile}_ms": milliseconds(seconds, percentile)
        for what, seconds in figures.items()
        for percentile in (50, 99)
    }


@contextmanager
def database(kind: str, directory: Path) -> Iterator[str]:
    """URL of an empty, migrated database of that kind."""
    if kind == "sqlite":
        url = f"sqlite:///{directory}/jobs.db"
        migrate(url)
        yield url
        return
    server = PostgresServer(directory / "postgres")
    server.start()
    try:
        url = server.create_database("wan")
        migrate(url)
        yield url
    finally:
        server.stop()


def measure_own(kind: str, depths: list[int], samples: int) -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        save_pair(directory)
        with database(kind, directory) as url:
            return asyncio.run(measure(kind, directory, url, depths, samples))


def growth(rows: list[Row]) -> list[Row]:
    """Each row's figures as factors of those at the first depth on the same database."""
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
    parser.add_argument("--databases", nargs="+", choices=KINDS, default=list(KINDS))
    options = parser.parse_args()
    rows = [row for kind in options.databases for row in measure_own(kind, options.depths, options.samples)]
    show(rows)
    print("times the first depth of the same database:")
    show(growth(rows))
    setting = {"cores": os.cpu_count(), "machine": platform.machine()}
    print(json.dumps({"benchmark": "queue_depth", "setting": setting, "rows": rows, "growth": growth(rows)}))


if __name__ == "__main__":
    main()
