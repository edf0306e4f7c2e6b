"""Cold loads and wall time of our dispatch and of stock `@serve.multiplexed`, on a real Serve cluster.

    python -m tests.benchmarks.affinity [--scale 1.0]

The same jobs, all there from the start, once through the Dispatcher with its job store and once through a handle with
`multiplexed_model_id`. The replicas sleep instead of loading and rendering, so the figures are those of the dispatch
alone; `--scale` shortens or stretches every sleep. Prints a table and, last, one line of JSON.
"""

import argparse
import asyncio
import json
import os
import random
import tempfile
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import ray
from ray import serve
from ray.serve.config import RequestRouterConfig
from ray.serve.handle import DeploymentHandle

from deployments.dispatcher import Dispatcher
from serve_app.jobs.records import Claim, NewRequest, RequestRecord
from serve_app.jobs.schema import migrate
from serve_app.jobs.store import JobStore
from serve_app.models.card import load_card
from serve_app.plan import ModelPlan
from serve_app.settings import Profile, Settings
from tests.fixtures.results import make_output
from tests.fixtures.specs import make_spec
from tests.serve_app.loras.files import TINY

REPLICAS = 3
MODEL = "wan22_14b_t2v"
POLL_S = 0.05


@dataclass(frozen=True)
class Workload:
    """Jobs by their pair, in order of arrival, and what a replica is to do for each. Seconds."""

    name: str
    pairs: tuple[str, ...]
    render_s: float
    load_s: float
    resident: int  # pairs that a replica keeps ready


@dataclass(frozen=True)
class Outcome:
    """Of one workload, dispatched in one way."""

    workload: str
    dispatch: str
    jobs: int
    pairs: int  # each of them must be loaded once, and each replica must load one
    cold: int
    wall_s: float

    @classmethod
    def of(cls, workload: Workload, dispatch: str, cold: int, wall_s: float) -> Self:
        return cls(workload.name, dispatch, len(workload.pairs), len(set(workload.pairs)), cold, round(wall_s, 1))


def workloads(scale: float) -> list[Workload]:
    shuffled = random.Random(18)
    mixed = ["a"] * 11 + ["b"] * 7
    shuffled.shuffle(mixed)
    names = [f"pair{number}" for number in range(12)]
    zipf = shuffled.choices(names, [1 / rank**1.1 for rank in range(1, 13)], k=60)
    return [
        Workload("mixed", tuple(mixed), 2.0 * scale, 1.0 * scale, resident=1),
        Workload("zipf", tuple(zipf), 0.5 * scale, 0.25 * scale, resident=2),
    ]


class Sleeper:
    """Stands in for the Generator: it keeps pairs, writes how each render ended, and sleeps in between."""

    def __init__(self, plan: ModelPlan, workload: Workload) -> None:
        self._store = JobStore(plan.settings.database_url)
        self._workload = workload
        self._pairs: OrderedDict[str, None] = OrderedDict()  # the most recently rendered last
        self._ends: set[asyncio.Task[bool]] = set()

    def record_routing_stats(self) -> dict[str, Any]:
        return {"resident": self._keys()}

    async def render(self, claim: Claim) -> tuple[str, ...]:
        pair = claim.spec.pair_key
        cold = pair not in self._pairs
        load_s = self._workload.load_s if cold else 0.0
        await asyncio.sleep(self._workload.render_s + load_s)
        self._pairs[pair] = None
        self._pairs.move_to_end(pair)
        if len(self._pairs) > self._workload.resident:
            self._pairs.popitem(last=False)
        # As in the Generator, the end state follows while the next render may already run.
        end = asyncio.create_task(self._store.claims.succeed(claim, make_output(claim, lora=load_s)))
        self._ends.add(end)
        end.add_done_callback(self._ends.discard)
        return tuple(self._keys())

    def _keys(self) -> list[str]:
        return list(reversed(self._pairs))


def multiplexed(workload: Workload) -> type:
    """Return the same work behind Serve's own multiplexing; the capacity is part of the class."""

    class Multiplexed:
        def __init__(self) -> None:
            self._loaded = 0

        @serve.multiplexed(max_num_models_per_replica=workload.resident)  # type: ignore[untyped-decorator]
        async def load(self, pair: str) -> str:
            await asyncio.sleep(workload.load_s)
            self._loaded += 1
            return pair

        async def render(self) -> bool:
            before = self._loaded
            await self.load(serve.get_multiplexed_model_id())
            await asyncio.sleep(workload.render_s)
            return self._loaded > before

    return Multiplexed


def plan_for(directory: Path) -> ModelPlan:
    return ModelPlan(
        settings=Settings(
            database_url=f"sqlite:///{directory}/jobs.db",
            output_url=f"{directory}/outputs",
            lora_root=directory / "loras",
            target_wait_s=1,
            lease_s=600,  # a Sleeper does not renew
        ),
        card=load_card(MODEL).model_copy(update={"architecture": TINY}),
        profile=Profile.CPU,
        base_model="org/base",
        transformer_model="org/experts",
        max_generators=REPLICAS,
        demo=False,
    )


def through_dispatcher(workload: Workload) -> Outcome:
    with tempfile.TemporaryDirectory() as directory:
        plan = plan_for(Path(directory))
        migrate(plan.settings.database_url)
        sleeper = serve.deployment(
            Sleeper,
            name="Generator",
            num_replicas=REPLICAS,
            max_ongoing_requests=1,
            ray_actor_options={"num_cpus": 1},
            request_router_config=RequestRouterConfig(request_router_class="deployments.routing:WarmFirstRouter"),
        )
        dispatcher = serve.deployment(Dispatcher, name="Dispatcher", max_ongoing_requests=100)
        handle = serve.run(dispatcher.bind(plan, sleeper.bind(plan, workload)), name="ours", route_prefix=None)
        record = asyncio.run(_render_all(plan, handle, workload))
        serve.delete("ours")
    assert record.finished_at is not None
    cold = sum(render.output.metadata.timings.lora > 0 for render in record.renders if render.output)
    return Outcome.of(workload, "dispatcher", cold, record.finished_at - record.created_at)


async def _render_all(plan: ModelPlan, dispatcher: DeploymentHandle, workload: Workload) -> RequestRecord:
    """Return the request with its renders once all have ended, and when it was submitted."""
    store = JobStore(plan.settings.database_url)
    specs = tuple(make_spec(pair=pair) for pair in workload.pairs)
    request = NewRequest(
        id=str(uuid4()), model=MODEL, created_at=time.time(), specs=specs, costs=(workload.render_s,) * len(specs)
    )
    await store.requests.submit(request)
    await dispatcher.queued.remote()
    while (record := await store.requests.get(request.id)).finished_at is None:  # noqa: ASYNC110 - it ends elsewhere
        await asyncio.sleep(POLL_S)
    await store.close()
    return record


def through_multiplex(workload: Workload) -> Outcome:
    stock = serve.deployment(
        multiplexed(workload),
        name="Generator",
        num_replicas=REPLICAS,
        max_ongoing_requests=1,
        ray_actor_options={"num_cpus": 1},
    )
    handle = serve.run(stock.bind(), name="stock", route_prefix=None)
    started = time.time()
    calls = [handle.options(multiplexed_model_id=pair).render.remote() for pair in workload.pairs]
    cold = sum(call.result() for call in calls)
    wall_s = time.time() - started
    serve.delete("stock")
    return Outcome.of(workload, "multiplexed", cold, wall_s)


def measure(scale: float) -> list[Outcome]:
    ray.init(address="local", num_cpus=2 * REPLICAS + 2, include_dashboard=False, log_to_driver=False)
    serve.start(proxy_location="Disabled")
    try:
        return [run(workload) for workload in workloads(scale) for run in (through_dispatcher, through_multiplex)]
    finally:
        serve.shutdown()
        ray.shutdown()


def report(outcomes: Sequence[Outcome], scale: float) -> None:
    rows = [asdict(outcome) for outcome in outcomes]
    print("  ".join(f"{column:>12}" for column in rows[0]))
    for row in rows:
        print("  ".join(f"{value:>12}" for value in row.values()))
    setting = {"cores": os.cpu_count(), "ray": ray.__version__, "replicas": REPLICAS, "scale": scale}
    print(json.dumps({"benchmark": "affinity", "setting": setting, "rows": rows}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0)
    options = parser.parse_args()
    report(measure(options.scale), options.scale)


if __name__ == "__main__":
    main()
