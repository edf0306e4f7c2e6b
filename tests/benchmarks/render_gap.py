"""How long the device of a warm Generator idles around renders: between two, and for the files of a remote LoRA.

    python -m tests.benchmarks.render_gap [--renders 40] [--lora-mb 210]

The gap: all renders are equal and come in one request, to a service of its own with one Generator. It is the time from
one claim to the next less the time in which the first one fetched and generated, by the server's own figures; encoding
and storing overlap with the next render.

The files: a LoRA of `--lora-mb` from a web server on loopback is rendered once, which downloads it, and then again and
again while it is resident. Shown is the time from the claim to the start of the pipeline, the server's `fetch`. It
should be under 5 ms for a resident LoRA. Most of the file is a tensor that has no place in the model (`strict: false`),
so that a render of the tiny model stays cheap.

Prints a table for each and, last, one line of JSON.
"""

import argparse
import itertools
import json
import os
import platform
import tempfile
from collections.abc import Mapping
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


def timings(client: Client, request_id: str) -> list[dict[str, float]]:
    """Return seconds of each part of each render of a request, in the request's order."""
    return [prompt["timings"] for prompt in client.result(request_id)["metadata"]["prompts"]]


def finished(client: Client, request: dict[str, Any], count: int = 1) -> str:
    """Submit a request of `count` renders, wait for its success, and return its id."""
    request_id = client.submit(request)
    status = client.wait(request_id, timeout_s=60 + 10 * count)
    assert status["status"] == "succeeded", status
    return request_id


def gaps(database_url: str, client: Client, request_id: str) -> list[float]:
    """Return seconds between the renders of one request."""
    query = select(renders.c.index, renders.c.started_at).where(renders.c.request_id == request_id)
    with connect(database_url) as connection:
        rows = connection.execute(query.order_by(renders.c.started_at)).all()
    used = timings(client, request_id)
    started = [started_at for _, started_at in rows]
    free = [started_at + used[index]["fetch"] + used[index]["generate"] for index, started_at in rows]
    return [later - end for end, (_, later) in zip(free, itertools.pairwise(started), strict=False)]


def measure_gaps(client: Client, database_url: str, count: int) -> dict[str, Any]:
    """Return the gap between renders of the demo pair."""
    client.render(body())  # warm-up: the pair is loaded
    prompts = ({"sample_steps": STEPS, "seed": seed} for seed in range(count))
    measured = gaps(database_url, client, finished(client, body(*prompts), count))
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


def measure(count: int, lora_mb: int) -> dict[str, Any]:
    """Return both measurements on one service."""
    with tempfile.TemporaryDirectory() as directory, web_server() as server:
        service = ServiceProcess(Path(directory), lora_private_hosts=[server.host], lora_allow_http=True)
        service.start()
        try:
            file = Path(directory, "loras", pair()[0]["path"])
            server.pages["/large.safetensors"] = File(large_lora(file, lora_mb))
            with Client(service.url) as client:
                return {
                    "rows": [measure_gaps(client, f"sqlite:///{directory}/var/jobs.db", count)],
                    "files": [measure_files(client, f"{server.url}/large.safetensors", count, lora_mb)],
                }
        finally:
            service.stop()


def show(row: Mapping[str, Any]) -> None:
    """Print a table of one row."""
    print("  ".join(f"{column:>15}" for column in row))
    print("  ".join(f"{value:>15}" for value in row.values()))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--renders", type=int, default=40)
    parser.add_argument("--lora-mb", type=int, default=210)
    options = parser.parse_args()
    measured = measure(options.renders, options.lora_mb)
    for row in (*measured["rows"], *measured["files"]):
        show(row)
    setting = {"cores": os.cpu_count(), "machine": platform.machine()}
    print(json.dumps({"benchmark": "render_gap", "setting": setting, **measured}))


if __name__ == "__main__":
    main()
