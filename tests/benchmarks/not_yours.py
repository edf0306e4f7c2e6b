"""Timing side channel: how long "not yours" takes to answer, beside "unknown".

    python -m tests.benchmarks.not_yours --calls 2000

Asks the API in this process, over a real job store of many requests, for the status of another tenant's request and of
an id that was never given out, in random order; and with a wrong secret for a key that exists, and one that does not.
Prints a table and, last, one line of JSON. The wall clock is what a client sees; the CPU time of this process hides
nothing behind the other work of a busy machine.

`p` is that of a permutation test: how often a difference of medians as large as this one comes about where the answers
are dealt out to the two questions at random. Small ones (0.01) say that the times tell; large ones, that nothing shows.
"""

import argparse
import asyncio
import json
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles
from uuid import uuid4

import numpy as np
from rich.console import Console
from rich.table import Table

from serve_app.access.keys import new_key
from serve_app.jobs.schema import migrate
from tests.client import body
from tests.fixtures.api import Api, api_over, save_pair
from tests.fixtures.keys import READ_AND_SUBMIT, Headers, bearer, make_key

REQUESTS = 200  # in the store, of the other tenant
WARM_UP = 50
PERMUTATIONS = 2000
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}

Call = Callable[[], tuple[str, Headers]]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two questions whose answers are the same: microseconds, medians and 95th percentiles."""

    pair: str
    clock: str
    first_us: float
    second_us: float
    first_p95_us: float
    second_p95_us: float
    difference_us: float
    p: float


async def measure(calls: int) -> list[Pair]:
    """Return the times of each pair of questions."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        save_pair(directory)
        database = f"sqlite:///{directory}/jobs.db"
        migrate(database)
        async with api_over(directory, database) as api:
            mine, other = await make_key(api.store, "mine"), await make_key(api.store, "other")
            kept, _ = await api.store.keys.all()
            ids = [await _submitted(api, other) for _ in range(REQUESTS)]

            def status(request_id: str) -> tuple[str, Headers]:
                return f"/v1/requests/{request_id}/status", mine

            def key(key_id: str) -> tuple[str, Headers]:
                secret = new_key("a", "b", READ_AND_SUBMIT).token.rpartition("_")[2].rjust(43, "x")[-43:]
                return "/v1/models", bearer(f"wan_{key_id}_{secret}")

            pairs: Mapping[str, tuple[Call, Call]] = {
                "not yours / unknown": (lambda: status(random.choice(ids)), lambda: status(str(uuid4()))),
                "wrong secret / unknown key": (lambda: key(kept.id), lambda: key(f"{random.getrandbits(64):016x}")),
            }
            return [found for name, questions in pairs.items() for found in await _pair(api, name, questions, calls)]


async def _submitted(api: Api, headers: Headers) -> str:
    answer = await api.http.post("/v1/inference", json=body(), headers=headers)
    request_id: str = answer.raise_for_status().json()["request_id"]
    return request_id


async def _pair(api: Api, name: str, questions: tuple[Call, Call], calls: int) -> list[Pair]:
    times: defaultdict[tuple[str, int], list[float]] = defaultdict(list)
    order = [which for which in (0, 1) for _ in range(calls + WARM_UP)]
    random.shuffle(order)
    for number, which in enumerate(order):
        path, headers = questions[which]()
        started = {clock: now() for clock, now in CLOCKS.items()}
        answer = await api.http.get(path, headers=headers)
        taken = {clock: (now() - started[clock]) * 1e6 for clock, now in CLOCKS.items()}
        if answer.status_code not in (401, 404):
            raise RuntimeError(f"{path}: {answer.status_code}")
        if number >= 2 * WARM_UP:
            for clock, each_us in taken.items():
                times[clock, which].append(each_us)
    return [_compared(name, clock, times[clock, 0], times[clock, 1]) for clock in CLOCKS]


def _compared(name: str, clock: str, first: Sequence[float], second: Sequence[float]) -> Pair:
    return Pair(
        pair=name,
        clock=clock,
        first_us=round(median(first), 1),
        second_us=round(median(second), 1),
        first_p95_us=round(quantiles(first, n=20)[-1], 1),
        second_p95_us=round(quantiles(second, n=20)[-1], 1),
        difference_us=round(median(first) - median(second), 1),
        p=_by_chance(first, second),
    )


def _by_chance(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the share of random splits of all times whose medians are at least as far apart (two-sided)."""
    both = np.array([*first, *second])
    found = abs(median(first) - median(second))
    shuffler = np.random.default_rng(0)
    splits = (shuffler.permutation(both) for _ in range(PERMUTATIONS))
    apart = [abs(np.median(split[: len(first)]) - np.median(split[len(first) :])) for split in splits]
    return round((1 + sum(bool(each >= found) for each in apart)) / (1 + PERMUTATIONS), 4)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=2000, help="of each question")
    found = asyncio.run(measure(parser.parse_args().calls))
    columns = list(asdict(found[0]))
    table = Table(*columns)
    for pair in found:
        table.add_row(*(str(value) for value in asdict(pair).values()))
    Console(width=140).print(table)
    print(json.dumps([asdict(pair) for pair in found]))


if __name__ == "__main__":
    main()
