"""POST and status latency, and videos per second, while the demo checkpoint renders.

    python -m tests.benchmarks.http_load [--renders 60] [--clients 1 16 64] [--proxy python haproxy]
                                         [--pause 0] [--ingress 1] [--base-url URL]

Each client posts its share of the requests, at least three, one after another, then waits for them in turn, asking for
the status twice a second, all on a connection that it opened before. With a pause, it waits about so many seconds
before each post, so that posts come one by one and not in bursts. Videos per second count from the first POST to the
end of the last render, by the server's clock. Before all that, an unmeasured crowd does the same. Prints a table and,
last, one line of JSON. It starts a service of its own unless `--base-url` names one.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import aiohttp

from tests.service_process import ServiceProcess

POLL_S = 0.5
LEAST_POSTS = 3  # of each client: of a single burst, the last answer would say only how long the burst takes
PROMPT = {"prompt": "a fox", "width": 64, "height": 64, "num_frames": 5, "sample_steps": 2}
BODY = {
    "model": "wan22_14b_t2v",
    "loras": [
        {"path": f"demo/wan22_demo_000000500_{side}_noise.safetensors", "transformer": side} for side in ("high", "low")
    ],
}


@dataclass
class Samples:
    """Latencies in seconds."""

    post: list[float] = field(default_factory=list)
    status: list[float] = field(default_factory=list)


async def timed(into: list[float], call: Any) -> dict[str, Any]:
    started = time.perf_counter()
    async with call as response:
        body: dict[str, Any] = await response.json()
    into.append(time.perf_counter() - started)
    return body


async def client(http: aiohttp.ClientSession, seeds: range, samples: Samples, pause_s: float) -> float:
    """Post one render per seed and wait for all; when the last one ended, in seconds since the epoch."""
    ids = []
    for seed in seeds:
        await asyncio.sleep(random.uniform(0, 2 * pause_s))
        body = {**BODY, "prompts": [{**PROMPT, "seed": seed}]}
        ids.append((await timed(samples.post, http.post("/v1/inference", json=body)))["request_id"])
    return max([await ended(http, request_id, samples) for request_id in ids])


async def open_connections(http: aiohttp.ClientSession, count: int) -> None:
    """As many as are used at once; clients of an API keep theirs, and a handshake is no part of a POST."""

    async def one() -> None:
        async with http.get("/health") as response:
            await response.read()

    await asyncio.gather(*(one() for _ in range(count)))


async def ended(http: aiohttp.ClientSession, request_id: str, samples: Samples) -> float:
    while True:
        status = await timed(samples.status, http.get(f"/v1/requests/{request_id}/status"))
        if status["status"] == "succeeded":
            return datetime.fromisoformat(status["finished_at"]).timestamp()
        if status["status"] in ("failed", "canceled"):
            raise RuntimeError(f"a render ended as {status}")
        await asyncio.sleep(POLL_S)


async def crowd(
    url: str, clients: int, renders: int, pause_s: float, headers: Mapping[str, str] | None = None
) -> tuple[Samples, float]:
    """Have clients post and wait; return their latencies, and the videos per second."""
    samples = Samples()
    async with aiohttp.ClientSession(url, raise_for_status=True, headers=headers) as http:
        await open_connections(http, clients)
        started = time.time()
        shares = [range(n, renders, clients) for n in range(clients)]
        ends = await asyncio.gather(*(client(http, share, samples, pause_s) for share in shares))
    return samples, renders / (max(ends) - started)


async def load(url: str, clients: int, renders: int, pause_s: float) -> dict[str, Any]:
    renders = max(renders, LEAST_POSTS * clients)
    samples, videos_per_s = await crowd(url, clients, renders, pause_s)
    return {
        "clients": clients,
        "renders": renders,
        "videos_per_s": round(videos_per_s, 2),
        "post_p50_ms": milliseconds(samples.post, 50),
        "post_p99_ms": milliseconds(samples.post, 99),
        "status_p99_ms": milliseconds(samples.status, 99),
    }


def milliseconds(samples: list[float], percentile: int) -> float:
    return round(1000 * statistics.quantiles(samples, n=100, method="inclusive")[percentile - 1], 1)


def measure(url: str, proxy: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    # Warm-up: the first load of the pair, and the threads and connections that the first crowd has made for it.
    asyncio.run(load(url, max(options.clients), LEAST_POSTS, 0))
    return [
        {"proxy": proxy, **asyncio.run(load(url, count, options.renders, options.pause))} for count in options.clients
    ]


def measure_own(proxy: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Against a service of our own, behind Serve's Python proxy or HAProxy."""
    with tempfile.TemporaryDirectory() as directory:
        environment = {"RAY_SERVE_ENABLE_HA_PROXY": "1" if proxy == "haproxy" else "0"}
        service = ServiceProcess(Path(directory), environment, ingress_replicas=options.ingress)
        service.start()
        try:
            return measure(service.url, proxy, options)
        finally:
            service.stop()


def report(rows: list[dict[str, Any]]) -> None:
    columns = list(rows[0])
    print("  ".join(f"{column:>14}" for column in columns))
    for row in rows:
        print("  ".join(f"{row[column]:>14}" for column in columns))
    setting = {
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        **{package: version(package) for package in ("ray", "torch", "diffusers")},
    }
    print(json.dumps({"benchmark": "http_load", "setting": setting, "rows": rows}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--renders", type=int, default=60)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--proxy", nargs="+", choices=["python", "haproxy"], default=["python", "haproxy"])
    parser.add_argument("--pause", type=float, default=0, help="mean seconds before each post of a client")
    parser.add_argument("--ingress", type=int, default=1, help="API replicas")
    parser.add_argument("--base-url")
    options = parser.parse_args()
    if options.base_url:
        report(measure(options.base_url, "as given", options))
    else:
        report([row for proxy in options.proxy for row in measure_own(proxy, options)])


if __name__ == "__main__":
    main()
