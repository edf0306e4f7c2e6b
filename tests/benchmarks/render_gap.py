"""How long the device of a warm Generator idles around renders: between two, and for the files of a remote LoRA.

    python -m tests.benchmarks.render_gap [--renders 40] [--lora-mb 210] [--switches 10]

The gap: all renders are equal and come in one request, to a service of its own with one Generator. It is the time from
one claim to the next less the time in which the first one fetched and generated, by the server's own figures; encoding
and storing overlap with the next render.

The files: a LoRA of `--lora-mb` from a web server on loopback is rendered once, which downloads it, and then again and
again while it is resident. Shown is the time from the claim to the start of the pipeline, the server's `fetch`. It
should be under 5 ms for a resident LoRA. Most of the file is a tensor that has no place in the model (`strict: false`),
so that a render of the tiny model stays cheap.

The switches: each of `--switches` renders has a LoRA of its own from the same server, of which none was ever
downloaded. Idle is the time from the end of one render's pipeline to the start of the next one's. It is measured twice:
on a service that fetches the files of the next render while one runs (`prepare_ahead_s`), and on one that does not.

Prints a table for each and, last, one line of JSON.
"""

import argparse
import itertools
import json
import os
import platform
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from sqlalchemy import select

from serve_app.jobs.tables import renders
from tests.benchmarks.http_load import milliseconds
from tests.client import Client, body, pair
from tests.fixtures.store import connect
from tests.fixtures.web_server import File, web_server
from tests.service_process import ServiceProcess

STEPS = 10
# A render must take longer than the download for the next one, with which it shares the cores here.
SWITCHING: dict[str, Any] = {"sample_steps": 150, "width": 128, "height": 128}
AHEAD_S = 60  # the default of prepare_ahead_s


def timings(client: Client, request_id: str) -> list[dict[str, float]]:
    """Return seconds of each part of each render of a request, in the request's order."""
    return [prompt["timings"] for prompt in client.result(request_id)["metadata"]["prompts"]]


def finished(client: Client, request: dict[str, Any], count: int = 1) -> str:
    """Submit a request of `count` renders, wait for its success, and return its id."""
    request_id = client.submit(request)
    status = client.wait(request_id, timeout_s=60 + 10 * count)
    assert status["status"] == "succeeded", status
    return request_id


@dataclass(frozen=True)
class Attempt:
    """When one render was claimed, in seconds since the epoch, and how long its files and its pipeline took."""

    claimed: float
    fetch_s: float
    generate_s: float

    @property
    def free(self) -> float:
        """Return when its device was free again."""
        return self.claimed + self.fetch_s + self.generate_s


def attempts(database_url: str, client: Client, request_ids: Sequence[str]) -> list[Attempt]:
    """Return the renders of these requests in the order of their claims."""
    columns = (renders.c.request_id, renders.c.index, renders.c.started_at)
    query = select(*columns).where(renders.c.request_id.in_(request_ids)).order_by(renders.c.started_at)
    with connect(database_url) as connection:
        rows = connection.execute(query).all()
    used = {request_id: timings(client, request_id) for request_id in request_ids}
    return [
        Attempt(claimed, used[request_id][index]["fetch"], used[request_id][index]["generate"])
        for request_id, index, claimed in rows
    ]


def measure_gaps(client: Client, database_url: str, count: int) -> dict[str, Any]:
    """Return the gap between renders of the demo pair."""
    client.render(body())  # warm-up: the pair is loaded
    prompts = ({"sample_steps": STEPS, "seed": seed} for seed in range(count))
    made = attempts(database_url, client, [finished(client, body(*prompts), count)])
    measured = [later.claimed - earlier.free for earlier, later in itertools.pairwise(made)]
    return {"renders": count, **{f"gap_p{p}_ms": milliseconds(measured, p) for p in (50, 95)}}


def measure_files(client: Client, address: str, count: int, lora_mb: int) -> dict[str, Any]:
    """Return the time before the pipeline starts with a remote LoRA: in the first render, and while it is resident."""
    loras = [{"path": address, "transformer": "high"}]
    (first,) = timings(client, finished(client, body(loras=loras, strict=False)))
    prompts = ({"seed": seed} for seed in range(count))
    again = timings(client, finished(client, body(*prompts, loras=loras, strict=False), count))
    resident = [used["fetch"] for used in again]
    return {
        "lora_mb": lora_mb,
        "renders": count,
        "first_ms": round(1000 * first["fetch"], 1),
        **{f"resident_p{p}_ms": milliseconds(resident, p) for p in (50, 95)},
    }


def large_lora(file: Path, megabytes: int) -> bytes:
    """Return the LoRA in `file` with a tensor beside it that makes it as large as asked for."""
    ballast = torch.rand(megabytes * 10**6 // 2).half()
    return save({**load_file(file), "diffusion_model.ballast.diff": ballast})


def measure_switches(client: Client, database_url: str, address: str, count: int) -> dict[str, Any]:
    """Return the idle time between renders that each need another LoRA, which is downloaded."""
    client.render(body())  # warm-up
    ids = [
        client.submit(
            body(
                {**SWITCHING, "seed": number},
                loras=[{"path": f"{address}/{number}.safetensors", "transformer": "high"}],
                strict=False,
            )
        )
        for number in range(count)
    ]
    for request_id in ids:
        status = client.wait(request_id, timeout_s=60 + 30 * count)
        assert status["status"] == "succeeded", status
    made = attempts(database_url, client, ids)
    idle = [later.claimed + later.fetch_s - earlier.free for earlier, later in itertools.pairwise(made)]
    return {
        "renders": count,
        "render_p50_ms": milliseconds([attempt.generate_s for attempt in made], 50),
        "fetch_p50_ms": milliseconds([attempt.fetch_s for attempt in made[1:]], 50),
        **{f"idle_p{p}_ms": milliseconds(idle, p) for p in (50, 95)},
    }


@contextmanager
def served(lora_mb: int, switches: int, **args: Any) -> Iterator[tuple[Client, str, str]]:
    """Run a service and a web server with LoRAs; yield a client, the job store and the server's address."""
    with tempfile.TemporaryDirectory() as directory, web_server() as server:
        service = ServiceProcess(Path(directory), lora_private_hosts=[server.host], lora_allow_http=True, **args)
        service.start()
        try:
            large = large_lora(Path(directory, "loras", pair()[0]["path"]), lora_mb)
            for name in ("large", *range(switches)):
                server.pages[f"/{name}.safetensors"] = File(large)
            with Client(service.url) as client:
                yield client, f"sqlite:///{directory}/var/jobs.db", server.url
        finally:
            service.stop()


def measure(count: int, lora_mb: int, switches: int) -> dict[str, Any]:
    """Return all measurements, the switches on a service that prepares and on one that does not."""
    with served(lora_mb, switches, prepare_ahead_s=AHEAD_S) as (client, database_url, address):
        rows = [measure_gaps(client, database_url, count)]
        files = [measure_files(client, f"{address}/large.safetensors", count, lora_mb)]
        ahead = measure_switches(client, database_url, address, switches)
    with served(lora_mb, switches, prepare_ahead_s=0) as (client, database_url, address):
        behind = measure_switches(client, database_url, address, switches)
    return {
        "rows": rows,
        "files": files,
        "switches": [{"prepare_ahead_s": AHEAD_S, **ahead}, {"prepare_ahead_s": 0, **behind}],
    }


def show(row: Mapping[str, Any]) -> None:
    """Print a table of one row."""
    print("  ".join(f"{column:>15}" for column in row))
    print("  ".join(f"{value:>15}" for value in row.values()))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--renders", type=int, default=40)
    parser.add_argument("--lora-mb", type=int, default=210)
    parser.add_argument("--switches", type=int, default=10)
    options = parser.parse_args()
    measured = measure(options.renders, options.lora_mb, options.switches)
    for row in (*measured["rows"], *measured["files"], *measured["switches"]):
        show(row)
    setting = {"cores": os.cpu_count(), "machine": platform.machine()}
    print(json.dumps({"benchmark": "render_gap", "setting": setting, **measured}))


if __name__ == "__main__":
    main()
