"""What a simulation showed, in a few numbers."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from tests.benchmarks.fleet.simulation import Start

_PERCENTILES = (50, 95, 99)


@dataclass(frozen=True)
class Figures:
    """Seconds, and shares from 0 to 1."""

    waits: dict[str, tuple[float, ...]]  # of each tenant, at the percentiles
    longest_wait: float
    longest_after_passed: float  # of a render, since a younger one of its line was started
    cold: float  # of the renders
    rendering: float  # of the replicas' time, until the last render ended
    makespan: float


def figures(starts: Sequence[Start], replicas: int) -> Figures:
    """Return the figures of a simulation that started these, in this order."""
    makespan = max(start.end for start in starts)
    return Figures(
        waits={tenant: percentiles(starts, tenant) for tenant in sorted({start.render.tenant for start in starts})},
        longest_wait=max(start.wait_s for start in starts),
        longest_after_passed=max(map(_longest_after_passed, _by_line(starts))),
        cold=sum(start.cold for start in starts) / len(starts),
        rendering=sum(start.seconds for start in starts) / (replicas * makespan),
        makespan=makespan,
    )


def percentiles(starts: Iterable[Start], tenant: str) -> tuple[float, ...]:
    """Return the tenant's waits."""
    waits = [start.wait_s for start in starts if start.render.tenant == tenant]
    return tuple(float(value) for value in np.percentile(waits, _PERCENTILES))


def _by_line(starts: Iterable[Start]) -> list[list[Start]]:
    by_line = sorted(starts, key=lambda start: start.render.line)  # stable: in order of starting within a line
    return [list(line) for _, line in groupby(by_line, key=lambda start: start.render.line)]


def _longest_after_passed(line: Sequence[Start]) -> float:
    highest: list[int] = []  # each id that was larger than all that started before it, and when it started
    at: list[float] = []
    longest = 0.0
    for start in line:
        if not highest or start.render.render_id > highest[-1]:
            highest.append(start.render.render_id)
            at.append(start.at)
        else:
            longest = max(longest, start.at - at[bisect_right(highest, start.render.render_id)])
    return longest
