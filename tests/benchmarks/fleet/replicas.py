"""The simulated replicas: which pairs each has ready, and which replicas are free."""

import random
from collections import Counter
from collections.abc import Collection, Container

RESIDENT = 8  # pairs that a replica keeps ready, the most recently used ones


class Elsewhere(Container[str]):
    """Pairs that a replica other than this one has ready."""

    def __init__(self, copies: Counter[str], own: Collection[str]) -> None:
        self._copies = copies
        self._own = own

    def __contains__(self, pair: object) -> bool:
        return self._copies[pair] > (pair in self._own)  # type: ignore[index]


class Replicas:
    """A number of replicas with least recently used replacement."""

    def __init__(self, count: int, seed: int) -> None:
        self.count = count
        self.free = Bag(range(count))
        self.random = random.Random(seed)
        self._resident: list[dict[str, None]] = [{} for _ in range(count)]  # the most recently used one last
        self._holders: dict[str, set[int]] = {}
        self._copies: Counter[str] = Counter()

    def resident(self, replica: int) -> tuple[str, ...]:
        return tuple(reversed(self._resident[replica]))

    def elsewhere(self, replica: int) -> Container[str]:
        return Elsewhere(self._copies, self._resident[replica])

    def warm(self, pair: str) -> list[int]:
        """The free ones that have the pair ready."""
        return [replica for replica in sorted(self._holders.get(pair, ())) if replica in self.free]

    def take(self, replica: int, pair: str) -> bool:
        """Start a render of the pair there; whether the pair was ready."""
        self.free.discard(replica)
        resident = self._resident[replica]
        warm = pair in resident
        if warm:
            del resident[pair]
        else:
            self._holders.setdefault(pair, set()).add(replica)
            self._copies[pair] += 1
        resident[pair] = None
        if len(resident) > RESIDENT:
            self._evict(replica)
        return warm

    def _evict(self, replica: int) -> None:
        pair = next(iter(self._resident[replica]))
        del self._resident[replica][pair]
        self._holders[pair].discard(replica)
        self._copies[pair] -= 1


class Bag:
    """Whole numbers, of which a random one can be had at once."""

    def __init__(self, members) -> None:
        self._members = list(members)
        self._places = {member: place for place, member in enumerate(self._members)}

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self):
        return iter(self._members)

    def __contains__(self, member: int) -> bool:
        return member in self._places

    def add(self, member: int) -> None:
        self._places[member] = len(self._members)
        self._members.append(member)

    def discard(self, member: int) -> None:
        place = self._places.pop(member)
        last = self._members.pop()
        if last != member:
            self._members[place] = last
            self._places[last] = place

    def any(self, random) -> int:
        return self._members[int(random.random() * len(self._members))]
