"""One soak: a service with keys, limits and retention on, clients at work, and the samples that were taken."""

import asyncio
import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from serve_app.access.keys import ApiKey, Scope, new_key
from serve_app.cli.database import in_store
from serve_app.jobs.store import JobStore
from serve_app.settings import Settings
from tests.fixtures.keys import ADMIN_KEY
from tests.service_process import ServiceProcess
from tests.soak.load import Load, Tally, write_pairs
from tests.soak.sampling import PlaceTrend, ProcessTrend, Sampler

logger = logging.getLogger("soak")

_TENANTS = ("team-a", "team-b")
_GRACE_S = 600.0  # the shortest that there is: so long nothing is removed, and then about as much as is made
_DAY_S = 86_400.0
_LORA_MEMORY_GIB = 0.01  # full within the warm-up: what grows after it is no cache of LoRAs


@dataclass(frozen=True)
class Report:
    """What was done and what was seen."""

    seconds: float
    tally: Tally
    processes: list[ProcessTrend]
    places: list[PlaceTrend]


def soak(directory: Path, *, seconds: float, clients: int) -> Report:
    """Run a service in `directory` under load for so long."""
    write_pairs(directory / "loras")
    service = ServiceProcess(
        directory,
        {"WAN_ADMIN_KEY": ADMIN_KEY},
        limits={"requests_per_s": 1000, "max_queued": 1000, "gpu_seconds_per_day": 1_000_000},
        lora_memory_gib=_LORA_MEMORY_GIB,
        retention="on",
        retention_days=_GRACE_S / _DAY_S,
        retention_gib=1,
        retention_grace_s=_GRACE_S,
        retention_every_s=20,
    )
    service.start()
    print(f"the service under load: {service.url}", flush=True)
    try:
        load, sampler = Load(service.url, _keys(directory), directory), Sampler(service)
        with sampler.running():
            asyncio.run(load.run(clients, seconds))
        return Report(seconds, load.tally, sampler.processes(seconds), sampler.places(seconds))
    finally:
        service.stop()


async def _add(store: JobStore, key: ApiKey) -> None:
    await store.keys.add(key)


def _keys(directory: Path) -> list[str]:
    """Make a key for each tenant."""
    settings = Settings(database_url=f"sqlite:///{directory}/var/jobs.db")
    made = [new_key(tenant, "soak", {Scope.SUBMIT, Scope.READ}) for tenant in _TENANTS]
    for each in made:
        in_store(settings, partial(_add, key=each.key))
    return [each.token for each in made]
