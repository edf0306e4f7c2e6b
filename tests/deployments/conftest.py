"""Generators in this process: the real actor, job store, output store and LoRA files, over a small pipeline."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import text

from deployments.generator import Generator
from deployments.preparation import Foresee, nothing_foreseen
from serve_app.jobs.endings import RenderEnd
from serve_app.jobs.records import Claim, NewRequest, Output, RenderRecord
from serve_app.jobs.store import JobStore
from serve_app.observers import Observer, Observers, Outcome
from serve_app.plan import ModelPlan
from serve_app.settings import Profile, Settings
from serve_app.spec import PAIR, LoraFile, OutputFormat, RenderSpec
from tests.deployments.small_pipeline import SmallPipeline
from tests.fixtures.specs import make_spec
from tests.fixtures.store import NewDatabase, connect, queued
from tests.serve_app.jobs.helpers import new_request
from tests.serve_app.loras.files import CARD, full, save

LEASE_S = 10.0


@dataclass
class Heard(Observer):
    """Everything that an observer hears of attempts, in its order."""

    signals: list[str] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    ends: list[RenderEnd] = field(default_factory=list)
    prepared_s: list[float] = field(default_factory=list)

    def started(self, claim: Claim) -> None:
        self.signals.append("started")

    def step(self, claim: Claim, steps_done: int) -> None:
        self.signals.append(f"step {steps_done}")

    def prepared(self, model: str, seconds: float) -> None:
        self.prepared_s.append(seconds)

    def published(self, claim: Claim, output: Output) -> None:
        self.signals.append("published")
        self.outputs.append(output)

    def ended(self, claim: Claim, outcome: Outcome) -> None:
        self.signals.append(f"ended {outcome.end}")
        self.outcomes.append(outcome)

    def finished(self, ends: Sequence[RenderEnd]) -> None:
        self.ends += ends


@dataclass
class Replica:
    """A Generator with what surrounds it. `left` holds the reasons for which it wanted to end its process."""

    generator: Generator
    pipeline: SmallPipeline
    heard: Heard
    left: list[str]


@dataclass
class Bench:
    """The service without its API and its Dispatcher: tests submit and claim."""

    directory: Path
    plan: ModelPlan
    store: JobStore
    replicas: list[Replica] = field(default_factory=list)

    def tune(self, **settings: Any) -> None:
        """Have what is started from now on run under other settings."""
        changed = self.plan.settings.model_copy(update=settings)
        self.plan = self.plan.model_copy(update={"settings": changed})

    def replica(self, foresee: Foresee = nothing_foreseen) -> Replica:
        """Start a Generator."""
        heard, left = Heard(), list[str]()
        generator = Generator(self.plan, observers=Observers(heard), leave=left.append, foresee=foresee)
        started = Replica(generator, SmallPipeline.loaded[-1], heard, left)
        self.replicas.append(started)
        return started

    def spec(self, pair: str = "", **changes: Any) -> RenderSpec:
        """Return a small render; `pair`, any word, is a LoRA pair on disk."""
        loras = tuple(self._lora(f"{pair}_{expert.value}", expert.value) for expert in PAIR) if pair else ()
        return make_spec(**({"loras": loras, "output_format": OutputFormat.PNG} | changes))

    def _lora(self, name: str, expert: str) -> LoraFile:
        path = self.directory / "loras" / f"{name}.safetensors"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            save(path, full(rank=2), {"format": "pt", "name": name})
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return LoraFile.model_validate(
            {
                "expert": expert,
                "reference": path.name,
                "location": str(path),
                "content": digest,
                "sha256": digest,
                "multiplier": 1.0,
            }
        )

    async def submit(self, *specs: RenderSpec) -> NewRequest:
        """Make a request of these renders durable."""
        request = new_request(specs=specs, costs=(1.0,) * len(specs))
        await self.store.requests.submit(request)
        return request

    async def claim(self, *specs: RenderSpec, lease_s: float = LEASE_S) -> Claim:
        """Submit, and claim the oldest render that waits."""
        if specs:
            await self.submit(*specs)
        oldest, *_ = await queued(self.store)
        claim = await self.store.claims.claim(oldest.render_id, "replica", lease_s)
        assert claim is not None
        return claim

    async def render(self, claim: Claim) -> RenderRecord:
        """Return the render of a claim, as it is stored."""
        record = await self.store.requests.get(claim.request_id)
        return record.renders[claim.index]

    def files(self) -> set[str]:
        """Return the names of everything in the output store."""
        root = self.directory / "outputs"
        return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


@contextmanager
def store_away(bench: Bench) -> Iterator[None]:
    """Take away what the job store reads and writes, while the block runs."""
    url = bench.plan.settings.database_url
    with connect(url) as connection:
        connection.execute(text("ALTER TABLE renders RENAME TO away"))
    yield
    with connect(url) as connection:
        connection.execute(text("ALTER TABLE away RENAME TO renders"))


async def until(condition: Callable[[], Any] | Callable[[], Awaitable[Any]], within_s: float = 60) -> None:
    """Wait until `condition` holds."""
    deadline = time.monotonic() + within_s
    while True:
        held = condition()
        if await held if isinstance(held, Awaitable) else held:
            return
        assert time.monotonic() < deadline, "it did not come to pass"
        await asyncio.sleep(0.005)


@pytest.fixture
def plan(tmp_path: Path, new_database: NewDatabase) -> ModelPlan:
    """Return a plan for SmallPipelines, with short times."""
    return ModelPlan(
        settings=Settings(
            lora_root=tmp_path / "loras",
            lora_cache_dir=tmp_path / "lora-cache",
            database_url=new_database("sqlite"),
            output_url=f"{tmp_path}/outputs",
            lease_s=LEASE_S,
            heartbeat_s=0.02,
            sweep_s=0.05,
            dispatcher_lease_s=10,
            target_wait_s=1,
        ),
        card=CARD.model_copy(update={"pipeline": "tests.deployments.small_pipeline:SmallPipeline"}),
        profile=Profile.GPU,  # so that no thread makes itself nice
        base_model="org/base",
        transformer_model="org/experts",
        max_generators=2,
        demo=False,
    )


@pytest_asyncio.fixture
async def bench(tmp_path: Path, plan: ModelPlan) -> AsyncIterator[Bench]:
    """Yield everything but replicas; those that a test starts are closed at its end."""
    bench = Bench(tmp_path, plan, JobStore(plan.settings.database_url))
    yield bench
    for replica in bench.replicas:
        replica.pipeline.go.set()
        await replica.generator.close()
    await bench.store.close()
