"""What a flood of renders for one model costs another model of the same service: its waits, with the flood and alone.

    python -m tests.benchmarks.model_flood [--renders 150] [--flood 2000] [--databases sqlite postgresql]

Real job stores and a real Dispatcher for each model. A render sleeps on its replica, since devices are not shared: what
is measured is all that models do share, the database and the process. The other model's renders come at random, at 60 %
of what its replica can do, at the same times in both runs. Prints a table and, last, one line of JSON.
"""

import argparse
import asyncio
import json
import os
import random
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import select

from deployments.dispatcher import Dispatcher
from serve_app.jobs.records import Claim
from serve_app.jobs.schema import migrate
from serve_app.jobs.store import JobStore
from serve_app.jobs.tables import renders
from serve_app.models.card import load_card
from serve_app.observers import Observers
from serve_app.plan import ModelPlan
from serve_app.settings import Profile, Settings
from tests.benchmarks.http_load import milliseconds
from tests.benchmarks.queue_depth import databases
from tests.deployments.local_serve import LocalHandle
from tests.fixtures.results import make_output
from tests.fixtures.specs import make_spec
from tests.fixtures.store import KINDS, connect
from tests.serve_app.jobs.helpers import new_request

FLOODED, OTHER = "wan22_14b_t2v", "wan22_5b"
RENDER_S = 0.1
UTILISATION = 0.6
TENANTS = 8

Row = dict[str, Any]


class Sleeper:
    """A replica that takes as long as a render does, and ends it in the store."""

    def __init__(self, store: JobStore) -> None:
        self._store = store

    def record_routing_stats(self) -> dict[str, Any]:
        return {"resident": []}

    async def render(self, claim: Claim) -> tuple[str, ...]:
        await asyncio.sleep(RENDER_S)
        await self._store.claims.succeed(claim, make_output(claim))
        return (claim.spec.pair_key,)


def plan_for(model: str, url: str, directory: Path) -> ModelPlan:
    """Return a model with one replica."""
    return ModelPlan(
        settings=Settings(database_url=url, output_url=f"{directory}/outputs", lora_root=directory, target_wait_s=1),
        card=load_card(model),
        profile=Profile.GPU,
        base_model="org/base",
        transformer_model="org/experts",
        max_generators=1,
        demo=False,
    )


@asynccontextmanager
async def service(url: str, directory: Path) -> AsyncIterator[dict[str, Dispatcher]]:
    """Yield a Dispatcher and a replica for each model."""
    store = JobStore(url)
    dispatchers = {
        model: Dispatcher(
            plan_for(model, url, directory), LocalHandle({f"{model}-0": Sleeper(store)}), observers=Observers()
        )
        for model in (FLOODED, OTHER)
    }
    yield dispatchers
    for dispatcher in dispatchers.values():
        await dispatcher.close()
    await store.close()


async def submit(store: JobStore, dispatcher: Dispatcher, model: str, count: int = 1, tenant: str = "default") -> None:
    """Queue renders of that model, and wake its Dispatcher where the database does not."""
    specs = (make_spec(model=model),) * count
    await store.requests.submit(new_request(model=model, specs=specs, costs=(RENDER_S,) * count, tenant=tenant))
    if not store.notifies:
        await dispatcher.queued()


async def measure(url: str, directory: Path, arrivals: Sequence[float], flood: int) -> list[float]:
    """Return seconds that each render of the other model waited."""
    store = JobStore(url)
    async with service(url, directory) as dispatchers:
        for tenant in range(TENANTS if flood else 0):
            await submit(store, dispatchers[FLOODED], FLOODED, flood // TENANTS, f"tenant{tenant}")
        started = time.monotonic()
        for arrival in arrivals:
            await asyncio.sleep(max(0.0, started + arrival - time.monotonic()))
            await submit(store, dispatchers[OTHER], OTHER)
        while (await store.queue(OTHER).load()).queued.renders:  # noqa: ASYNC110 - it ends elsewhere
            await asyncio.sleep(RENDER_S)
        assert not flood or (await store.queue(FLOODED).load()).queued.renders, "the flood was over too soon"
    await store.close()
    with connect(url) as connection:
        rows = connection.execute(select(renders.c.created_at, renders.c.started_at).where(renders.c.model == OTHER))
        return [row.started_at - row.created_at for row in rows]


def rows_of(kind: str, count: int, flood: int) -> list[Row]:
    """Alone, and with the flood."""
    chance = random.Random(1)
    arrivals = [0.0]
    while len(arrivals) < count:
        arrivals.append(arrivals[-1] + chance.expovariate(UTILISATION / RENDER_S))
    rows = []
    with tempfile.TemporaryDirectory() as name, databases(kind, Path(name)) as new_database:
        for flooded in (0, flood):
            url = new_database(f"flood{flooded}")
            migrate(url)
            waits = asyncio.run(measure(url, Path(name), arrivals, flooded))
            p50, p95 = (milliseconds(waits, percentile) for percentile in (50, 95))
            row: Row = {
                "database": kind,
                "flood": flooded,
                "renders": len(waits),
                "wait_p50_ms": p50,
                "wait_p95_ms": p95,
            }
            rows.append(row)
    alone, beside = rows
    return [{**row, "p95_times_alone": round(row["wait_p95_ms"] / alone["wait_p95_ms"], 2)} for row in (alone, beside)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--renders", type=int, default=150)
    parser.add_argument("--flood", type=int, default=2000)
    parser.add_argument("--databases", nargs="+", choices=KINDS, default=list(KINDS))
    options = parser.parse_args()
    rows = [row for kind in options.databases for row in rows_of(kind, options.renders, options.flood)]
    print("  ".join(f"{column:>15}" for column in rows[0]))
    for row in rows:
        print("  ".join(f"{value:>15}" for value in row.values()))
    setting = {"cores": os.cpu_count(), "render_s": RENDER_S, "utilisation": UTILISATION}
    print(json.dumps({"benchmark": "model_flood", "setting": setting, "rows": rows}))


if __name__ == "__main__":
    main()
