"""What the Dispatcher knows of the Generators: which there are, and which LoRA pairs each has in memory."""

import threading
from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from deployments.scheduling import rank


class FleetMemory:
    """Learns from finished renders at once, and from what replicas publish where it knows nothing yet.

    The request router asks it from a thread of its own.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._resident: dict[str, tuple[str, ...]] = {}
        self._copies: Counter[str] = Counter()  # replicas that hold a pair
        self._alive: frozenset[str] = frozenset()
        self._wanted: frozenset[str] = frozenset()

    @property
    def size(self) -> int:
        """Replicas that were there when the router last looked."""
        return len(self._alive)

    def resident(self, replica_id: str) -> tuple[str, ...]:
        """Pairs that the replica has ready, the loaded one first; empty where nothing is known."""
        return self._resident.get(replica_id, ())

    def elsewhere(self, replica_id: str) -> Collection[str]:
        """Pairs that other replicas have ready."""
        with self._lock:
            own = frozenset(self._resident.get(replica_id, ()))
            return {pair for pair, copies in self._copies.items() if copies > (pair in own)}

    def learned(self, replica_id: str, resident: Iterable[str]) -> None:
        """A replica said what it has ready."""
        with self._lock:
            self._set(replica_id, tuple(resident))

    def forget(self, replica_id: str) -> None:
        """A replica was lost, with all that it had."""
        self.learned(replica_id, ())

    def want(self, pairs: Iterable[str]) -> None:
        """These pairs are what the oldest waiting renders need."""
        self._wanted = frozenset(pairs)

    def saw(self, published: Mapping[str, Collection[str]]) -> None:
        """The replicas that there are now, each with the pairs that it published last, which may be none yet."""
        with self._lock:
            self._alive = frozenset(published)
            for gone in self._resident.keys() - published.keys():
                self._set(gone, ())
            for replica_id, pairs in published.items():
                if pairs and replica_id not in self._resident:
                    self._set(replica_id, tuple(pairs))

    def rank(self, replica_id: str) -> int:
        """How well a replica that is free suits what waits; 0 is best. See `deployments.scheduling.rank`."""
        return rank(self.resident(replica_id), self._wanted)

    def _set(self, replica_id: str, resident: tuple[str, ...]) -> None:
        for pair in self._resident.pop(replica_id, ()):
            self._copies[pair] -= 1
            if not self._copies[pair]:
                del self._copies[pair]
        self._copies.update(resident)
        if resident:
            self._resident[replica_id] = resident
