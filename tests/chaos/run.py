"""One run: the same renders of two models, undisturbed and under faults, and what became of them."""

import asyncio
import json
import logging
import time
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from tests.chaos.clients import Job, Load, run_clients
from tests.chaos.faults import Faults
from tests.chaos.outcome import Outcome, outcome_of
from tests.client import body, pair
from tests.lantern import CARD, ENVIRONMENT
from tests.lantern.loras import save_lora
from tests.loras.layouts import write
from tests.loras.model import DEMO
from tests.postgres_server import PostgresServer
from tests.service_process import ServiceProcess, write_demo_card

logger = logging.getLogger("chaos")

_PAIRS = ("mine", "yours", "theirs", "ours")
_SIZES = ((64, 64), (96, 64), (64, 96))
_SEEDS = (1, 2)
_STEPS = 8
_LANTERN = "lantern.safetensors"
_ENVIRONMENT = {**ENVIRONMENT, "RAY_OVERRIDE_RESOURCES": json.dumps({"CPU": 4})}  # each Generator takes half a CPU

Json = dict[str, Any]


def run(directory: Path, *, renders: int, clients: int, every_s: float) -> Outcome:
    """Run everything in `directory`; a service on a real cluster and a PostgreSQL server of its own."""
    database = PostgresServer(directory / "postgres")
    database.start()
    url = database.create_database("chaos")
    models = [{"model": str(write_demo_card(directory)), "max_generators": 2}, {"model": str(CARD)}]
    service = ServiceProcess(
        directory, _ENVIRONMENT, database_url=url, ingress_replicas=2, models=models, lease_s=5, max_attempts=10
    )
    try:
        _write_pairs(directory / "loras")
        service.start()
        expected = _undisturbed(service.url, clients)
        load = Load(service.url, _jobs(renders, "chaos"), clients)
        _strike(service, database, url, load, every_s)
        results = load.results()
        files = Counter(path.parent.name for path in (directory / "var" / "outputs").rglob("*.zip"))
        return outcome_of(results, expected, url=url, prefix="chaos", files=files)
    finally:
        service.kill()
        database.stop()


def _write_pairs(root: Path) -> None:
    root.mkdir(exist_ok=True)
    for number, name in enumerate(_PAIRS):
        for seed, lora in enumerate(pair(name), 2 * number):
            write("ai-toolkit", root, sizes=DEMO, seed=seed).path.rename(root / lora["path"])
    save_lora(root / _LANTERN)


def _jobs(count: int, name: str) -> list[Job]:
    """Return renders of mixed models, pairs and sizes, every few of them alike."""
    return [Job(f"{name}-{number}", *_KINDS[number % len(_KINDS)]) for number in range(count)]


def _kinds() -> list[tuple[str, Json]]:
    """Return what is asked for, each with a name; one in three is of the second model."""
    kinds: list[tuple[str, Json]] = []
    for number, (seed, (width, height), name) in enumerate(product(_SEEDS, _SIZES, _PAIRS)):
        prompt = {"width": width, "height": height, "seed": seed, "sample_steps": _STEPS, "output_format": "png"}
        kinds.append((f"{name} {width}x{height} seed {seed}", body(prompt, loras=pair(name))))
        if number % 2:
            lantern = {"prompt": "a lantern", "num_frames": 9, "seed": number, "output_format": "png"}
            loras = [{"path": _LANTERN}]
            kinds.append((f"lantern {number}", {"model": "lantern_1b", "loras": loras, "prompts": [lantern]}))
    return kinds


_KINDS = _kinds()


def _undisturbed(url: str, clients: int) -> dict[str, str | None]:
    """Return the frames of each kind of render."""
    jobs = _jobs(len(_KINDS), "undisturbed")
    return {result.job.spec: result.frames for result in asyncio.run(run_clients(url, jobs, clients))}


def _strike(service: ServiceProcess, database: PostgresServer, url: str, load: Load, every_s: float) -> None:
    """Cause one fault after another."""
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"), pool_pre_ping=True)

    def rendering() -> bool:
        with engine.connect() as connection:
            return bool(connection.execute(text("SELECT 1 FROM renders WHERE state = 'processing'")).first())

    for name, strike in Faults(service, database, rendering):
        time.sleep(every_s)
        logger.info("fault: %s (load %s)", name, "goes on" if load.goes_on else "is over")
        strike()
    engine.dispose()
