"""Trends: first, last and largest value of a series of samples, and its slope by least squares."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import linear_regression

_WARM_UP = 1 / 3  # of the run: caches, connections and threads of a fresh process
_HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One value. `at_s` counts from the start of the run."""

    at_s: float
    value: float


@dataclass(frozen=True, slots=True)
class Trend:
    """What a series did after the warm-up; `hourly` is its slope."""

    first: float
    last: float
    largest: float
    hourly: float


def trend_of(samples: Sequence[Sample], seconds: float) -> Trend | None:
    """Return the trend of a series in a run of so many seconds; None if too few samples came after the warm-up."""
    warm = [sample for sample in samples if sample.at_s >= seconds * _WARM_UP]
    if len(warm) < 3:
        return None
    slope, _ = linear_regression([sample.at_s for sample in warm], [sample.value for sample in warm])
    values = [sample.value for sample in warm]
    return Trend(values[0], values[-1], max(values), slope * _HOUR_S)
