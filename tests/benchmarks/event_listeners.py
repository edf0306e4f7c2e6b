"""What listeners to events cost: POST latency while the demo renders, without and with 500 streams open.

    python -m tests.benchmarks.event_listeners [--listeners 500] [--posts 60] [--rounds 3] [--proxy python]

A service of its own renders one request after another. Each listener has a connection of its own and listens to one of
the requests that wait, with previews; a stream that ends is opened again, on a request that still waits. Rounds without
and with listeners take turns, so that what else the machine does hits both. Prints a table and, last, one line of JSON.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import aiohttp

from tests.benchmarks.http_load import BODY, PROMPT
from tests.service_process import ServiceProcess

_PAUSE_S = 0.1  # between two posts
_STEPS = 100  # so many that renders still wait when the last post is measured
_WAITING = 20  # renders in the queue, at least, that listeners hear of


async def post(http: aiohttp.ClientSession, seed: int) -> tuple[str, float]:
    """Return the id of a new request, and the seconds that the answer took."""
    body = {**BODY, "preview": True, "prompts": [{**PROMPT, "seed": seed, "sample_steps": _STEPS}]}
    started = time.perf_counter()
    async with http.post("/v1/inference", json=body) as answer:
        accepted = await answer.json()
    return accepted["request_id"], time.perf_counter() - started


async def listen(http: aiohttp.ClientSession, ids: list[str], number: int, heard: Counter[str]) -> None:
    """Hear the events of one request after another."""
    while True:
        request_id = ids[-1 - number % min(len(ids), _WAITING)]
        with suppress(aiohttp.ClientError):
            async with http.get(f"/v1/requests/{request_id}/events") as answer:
                answer.raise_for_status()
                async for line in answer.content:
                    if line.startswith(b"event:"):
                        heard[line[6:].strip().decode()] += 1
        await asyncio.sleep(1)


async def measure(http: aiohttp.ClientSession, posts: int, ids: list[str]) -> list[float]:
    """Return seconds that posts took, one after another."""
    taken = []
    for number in range(posts):
        request_id, seconds = await post(http, len(ids) + number)
        ids.append(request_id)
        taken.append(seconds)
        await asyncio.sleep(_PAUSE_S)
    return taken


async def run(url: str, listeners: int, posts: int, rounds: int) -> dict[str, object]:
    """Return latencies in milliseconds without and with listeners."""
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    async with (
        # Not the connections of streams, and none that the proxy closes meanwhile, as it does after 5 s.
        aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(keepalive_timeout=2)) as http,
        aiohttp.ClientSession(url, connector=connector, timeout=timeout) as streams,
    ):
        ids = [(await post(http, seed))[0] for seed in range(2 * _WAITING)]
        heard: Counter[str] = Counter()
        taken: dict[bool, list[float]] = {False: [], True: []}
        await measure(http, posts // 2, ids)  # unmeasured
        for _ in range(rounds):
            taken[False] += await measure(http, posts, ids)
            before = heard["status"]
            tasks = [asyncio.create_task(listen(streams, ids, number, heard)) for number in range(listeners)]
            while heard["status"] < before + listeners:  # noqa: ASYNC110 - each begins with one; nobody else tells
                await asyncio.sleep(0.1)
            await measure(http, 5, ids)  # unmeasured
            taken[True] += await measure(http, posts, ids)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.sleep(1)
    without, with_them = (figures(taken[are_there]) for are_there in (False, True))
    return {
        "listeners": listeners,
        "posts": posts * rounds,
        "without": without,
        "with": with_them,
        "p99_ratio": round(with_them["p99_ms"] / without["p99_ms"], 2),
        "heard": dict(heard),
    }


def figures(seconds: list[float]) -> dict[str, float]:
    """Return percentiles in milliseconds."""
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return {f"p{percent}_ms": round(1000 * cuts[percent - 1], 1) for percent in (50, 90, 99)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listeners", type=int, default=500)
    parser.add_argument("--posts", type=int, default=60, help="in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--proxy", choices=["python", "haproxy"], default="python")
    wanted = parser.parse_args()
    environment = {"RAY_SERVE_ENABLE_HA_PROXY": "1" if wanted.proxy == "haproxy" else "0"}
    most = {"max_listeners": wanted.listeners, "max_listeners_per_sender": wanted.listeners}
    with tempfile.TemporaryDirectory() as directory:
        service = ServiceProcess(Path(directory), environment, **most)
        service.start()
        try:
            result = asyncio.run(run(service.url, wanted.listeners, wanted.posts, wanted.rounds))
        finally:
            service.stop()
    print(f"{'POST':<16}{'p50 ms':>8}{'p90 ms':>8}{'p99 ms':>8}")
    for name in ("without", "with"):
        row = result[name]
        print(f"{name + ' listeners':<16}" + "".join(f"{value:>8}" for value in row.values()))  # type: ignore[attr-defined]
    print(json.dumps({"proxy": wanted.proxy, **result}))


if __name__ == "__main__":
    main()
