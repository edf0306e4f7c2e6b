"""Residency: which LoRA pairs are ready where, on one Generator and in the whole fleet.

A pipeline keeps single LoRAs, while routing goes by pairs (`RenderSpec.pair_key`). A Generator therefore follows which
pairs are complete, and answers each render with them; the Dispatcher learns from these answers.

Example:
    pairs = ResidentPairs()
    pairs.rendered(spec, rendered.resident)
    fleet.learned("replica 1", pairs.keys)
"""

import threading
from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from deployments.scheduling.policy import rank
from serve_app.results import GeneratorRuntime
from serve_app.spec import RenderSpec


class ResidentPairs:
    """The LoRA pairs that one Generator could render without loading anything."""

    def __init__(self) -> None:
        self._loras: dict[str, frozenset[str]] = {}  # content ids of each pair, the most recently rendered last
        self._loaded: str | None = None

    def rendered(self, spec: RenderSpec, resident: frozenset[str]) -> None:
        """Record that `spec` was rendered, and that the LoRAs with the content ids `resident` are in memory now."""
        self._loaded = spec.pair_key
        self._loras.pop(spec.pair_key, None)
        self._loras[spec.pair_key] = frozenset(lora.content for lora in spec.acting)
        self._loras = {pair: loras for pair, loras in self._loras.items() if loras <= resident}

    @property
    def contents(self) -> frozenset[str]:
        """Return the content ids of all their LoRAs."""
        return frozenset[str]().union(*self._loras.values())

    @property
    def keys(self) -> tuple[str, ...]:
        """Return pair keys, the loaded one first, then by how recently they were rendered."""
        recent = [pair for pair in reversed(self._loras) if pair != self._loaded]
        return tuple(recent if self._loaded is None else [self._loaded, *recent])


class FleetMemory:
    """The Generators, and the pairs that each of them has ready.

    It learns from finished renders at once, and from the published state of replicas that it does not know yet. It is
    only a hint: a wrong entry costs one cold load. The request router calls it from its own thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._resident: dict[str, tuple[str, ...]] = {}
        self._copies: Counter[str] = Counter()  # replicas that hold a pair
        self._alive: frozenset[str] = frozenset()
        self._wanted: frozenset[str] = frozenset()
        self._runtimes: Mapping[str, GeneratorRuntime] = {}

    @property
    def size(self) -> int:
        """Return the number of replicas at the router's last update."""
        return len(self._alive)

    def lives(self, replica_id: str) -> bool:
        """Return whether the replica takes renders, as of the router's last update; a draining one does not."""
        return replica_id in self._alive

    def resident(self, replica_id: str) -> tuple[str, ...]:
        """Return pairs that the replica has ready, the loaded one first; empty if nothing is known."""
        return self._resident.get(replica_id, ())

    def elsewhere(self, replica_id: str) -> Collection[str]:
        """Return pairs that other replicas have ready."""
        with self._lock:
            own = frozenset(self._resident.get(replica_id, ()))
            return {pair for pair, copies in self._copies.items() if copies > (pair in own)}

    def learned(self, replica_id: str, resident: Iterable[str]) -> None:
        """Set the pairs that a replica reports as ready."""
        with self._lock:
            self._set(replica_id, tuple(resident))

    def forget(self, replica_id: str) -> None:
        """Record that a replica was lost, with all that it had."""
        self.learned(replica_id, ())

    def want(self, pairs: Iterable[str]) -> None:
        """Set which pairs the oldest waiting renders need."""
        self._wanted = frozenset(pairs)

    def saw(self, published: Mapping[str, Collection[str]]) -> None:
        """Set the existing replicas, each with the pairs that it published last (none for a new replica)."""
        with self._lock:
            self._alive = frozenset(published)
            for gone in self._resident.keys() - published.keys():
                self._set(gone, ())
            for replica_id, pairs in published.items():
                if pairs and replica_id not in self._resident:
                    self._set(replica_id, tuple(pairs))

    def run_on(self, runtimes: Mapping[str, GeneratorRuntime]) -> None:
        """Set what the replicas run on, as they published it."""
        self._runtimes = runtimes

    def snapshot(self) -> dict[str, GeneratorRuntime]:
        """Return the known state of each replica, with the pairs that it has ready now."""
        return {
            replica_id: runtime.model_copy(update={"pairs": self.resident(replica_id)})
            for replica_id, runtime in self._runtimes.items()
        }

    def rank(self, replica_id: str) -> int:
        """Return how well a free replica suits the queue; 0 is best. See `deployments.scheduling.policy.rank`."""
        return rank(self.resident(replica_id), self._wanted)

    def _set(self, replica_id: str, resident: tuple[str, ...]) -> None:
        for pair in self._resident.pop(replica_id, ()):
            self._copies[pair] -= 1
            if not self._copies[pair]:
                del self._copies[pair]
        self._copies.update(resident)
        if resident:
            self._resident[replica_id] = resident
