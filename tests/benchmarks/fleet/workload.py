"""What is asked of the simulated fleet: renders of three tenants, one of which floods."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serve_app.jobs.records import Waiting
from serve_app.spec import Priority

QUIET = ("quiet-a", "quiet-b")
FLOODER = "flood"
TENANTS = (*QUIET, FLOODER)
_SHARES = {QUIET[0]: 0.35, QUIET[1]: 0.35, FLOODER: 0.30}  # of the renders
_BURSTS = 5
_BURST_S = 60.0

# Log-normal, with these standard deviations of the logarithm.
_MEDIAN_S = 120.0
_SPREAD = 0.5  # 95 % of the renders take between 45 and 320 s
_PREDICTION_ERROR = 0.1

_PAIRS = 5000
_ZIPF = 1.1


@dataclass(frozen=True, slots=True)
class Work:
    """A render, and how many seconds it really takes where its pair is ready."""

    render: Waiting
    seconds: float


def workload(renders: int, replicas: int, load: float, seed: int) -> list[Work]:
    """Return renders in order of arrival, which take `load` times the seconds of the replicas until the last one."""
    random = np.random.default_rng(seed)
    seconds = random.lognormal(np.log(_MEDIAN_S), _SPREAD, renders)
    predicted = seconds * random.lognormal(0.0, _PREDICTION_ERROR, renders)
    pairs = random.choice(_PAIRS, renders, p=_popularity())
    arrivals = _arrivals(random, renders, float(seconds.sum()) / (replicas * load))
    return [
        Work(
            Waiting(
                render_id=number,
                tenant=tenant,
                priority=Priority.HIGH if tenant == FLOODER else Priority.NORMAL,
                pair_key=str(pairs[number]),
                created_at=created_at,
                cost_s=float(predicted[number]),
            ),
            float(seconds[number]),
        )
        for number, (created_at, tenant) in enumerate(arrivals)
    ]


def _arrivals(random: np.random.Generator, renders: int, span_s: float) -> list[tuple[float, str]]:
    """Poisson for the quiet tenants; all of a burst within a minute for the other."""
    counts = {tenant: round(renders * share) for tenant, share in _SHARES.items()}
    counts[FLOODER] = renders - sum(counts[tenant] for tenant in QUIET)
    arrivals = [(float(at), tenant) for tenant in QUIET for at in random.uniform(0, span_s, counts[tenant])]
    starts = span_s * (random.integers(_BURSTS, size=counts[FLOODER]) + 0.2) / _BURSTS
    arrivals += [(float(at), FLOODER) for at in starts + random.uniform(0, _BURST_S, counts[FLOODER])]
    return sorted(arrivals)


def _popularity() -> NDArray[np.float64]:
    weights = np.arange(1, _PAIRS + 1, dtype=np.float64) ** -_ZIPF
    return weights / float(weights.sum())
