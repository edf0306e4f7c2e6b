"""Start-time fair queueing: tenants share the replicas by weight, over predicted seconds.

After Goyal, Vin and Cheng, "Start-time fair queueing" (SIGCOMM 1996); its start tag is called a turn here.

Example:
    shares = FairShare({"paying": 3.0})
    turns = shares.turns(["paying", "other"])  # the smallest is owed most
    shares.charge("paying", cost_s=40.0)
    shares.settle("paying", predicted_s=40.0, actual_s=44.0)
"""

from collections import Counter
from collections.abc import Iterable, Mapping


class FairShare:
    """Counts the service that each tenant with work has received.

    Virtual time is seconds of one replica, divided by the tenant's weight (1 for those not named). A tenant's turn is
    the virtual time at which its next render starts. The system's virtual time is the turn of the most owed tenant. A
    tenant that returns after it was idle starts at the system's time: idling gives neither credit nor debt. Nothing is
    stored for tenants without work.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = weights
        self._system = 0.0
        self._turns: dict[str, float] = {}
        self._waiting: frozenset[str] = frozenset()
        self._running: Counter[str] = Counter()

    def turns(self, tenants: Iterable[str]) -> dict[str, float]:
        """Return the turn of each of these tenants, which must be all tenants with waiting renders."""
        before, self._waiting = self._waiting, frozenset(tenants)
        for tenant in self._waiting - before:
            self._turns[tenant] = max(self._turn(tenant), self._system)
        for tenant in before - self._waiting:
            self._forget_if_idle(tenant)
        turns = {tenant: self._turn(tenant) for tenant in self._waiting}
        self._system = max(self._system, min(turns.values(), default=self._system))
        return turns

    def foreseen(self, tenants: Iterable[str]) -> dict[str, float]:
        """Return what `turns` would return now, and change nothing."""
        return {
            tenant: self._turn(tenant) if tenant in self._waiting else max(self._turn(tenant), self._system)
            for tenant in tenants
        }

    def charge(self, tenant: str, cost_s: float) -> None:
        """Charge a tenant for a render that starts now and will take that many seconds, as predicted."""
        self._turns[tenant] = self._turn(tenant) + cost_s / self._weight(tenant)
        self._running[tenant] += 1

    def settle(self, tenant: str, predicted_s: float, actual_s: float) -> None:
        """Correct a charge when its render has ended; ignore renders that were not charged here."""
        if tenant not in self._running:
            return
        self._turns[tenant] += (actual_s - predicted_s) / self._weight(tenant)
        self._running[tenant] -= 1
        self._forget_if_idle(tenant)

    def slack(self, replicas: int, tenants: Iterable[str], patience_s: float) -> float:
        """Return the virtual time that passes for these tenants while `replicas` work for `patience_s` seconds."""
        weights = sum(map(self._weight, tenants))
        return replicas * patience_s / weights if weights else 0.0

    def _turn(self, tenant: str) -> float:
        return self._turns.get(tenant, self._system)

    def _weight(self, tenant: str) -> float:
        return self._weights.get(tenant, 1.0)

    def _forget_if_idle(self, tenant: str) -> None:
        if self._running[tenant] > 0:
            return
        del self._running[tenant]
        if tenant not in self._waiting:
            del self._turns[tenant]
