"""Rate limits (token bucket): each tenant's calls in one process.

Example:
    rates = Rates()
    state = rates.take("team-a", Rate(per_s=5, burst=10))
    state.allowed, state.remaining

With n Ingress replicas each one allows 1/n of a tenant's rate. This is exact if calls are spread evenly.
"""

import math
from dataclasses import dataclass
from time import monotonic

from cachetools import LRUCache

_REMEMBERED = 10_000  # tenants; one that is forgotten has a full bucket again


@dataclass(frozen=True, slots=True)
class Rate:
    """The average number of calls per second, and the largest number at once (burst)."""

    per_s: float
    burst: int

    def shared_by(self, processes: int) -> "Rate":
        """Return the rate of each one of that many processes."""
        return Rate(self.per_s / processes, max(1, math.ceil(self.burst / processes)))


@dataclass(frozen=True, slots=True)
class RateState:
    """The state of a bucket after a call. Times are seconds."""

    allowed: bool
    remaining: int  # calls that may follow at once
    full_in_s: int  # until the burst is there again
    next_in_s: int  # until the next call may come


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class Rates:
    """The buckets of the tenants of one process."""

    def __init__(self) -> None:
        self._buckets: LRUCache[str, _Bucket] = LRUCache(_REMEMBERED)

    def take(self, tenant: str, rate: Rate) -> RateState:
        """Take a token for one call of the tenant; `allowed` is false if the bucket is empty."""
        now = monotonic()
        bucket = self._buckets.setdefault(tenant, _Bucket(rate.burst, now))
        bucket.tokens = min(rate.burst, bucket.tokens + (now - bucket.at) * rate.per_s)
        bucket.at = now
        allowed = bucket.tokens >= 1
        if allowed:
            bucket.tokens -= 1
        return RateState(
            allowed=allowed,
            remaining=int(bucket.tokens),
            full_in_s=math.ceil((rate.burst - bucket.tokens) / rate.per_s),
            next_in_s=max(1, math.ceil((1 - bucket.tokens) / rate.per_s)),
        )
