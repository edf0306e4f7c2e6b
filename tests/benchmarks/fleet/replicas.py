"""The simulated replicas: which of them are free, and which pairs each has ready."""

import random
from collections import Counter
from collections.abc import Collection, Container, Iterable, Iterator

RESIDENT = 8  # pairs that a replica keeps ready, the most recently used ones


class Replicas:
    """Keep what they used most recently; those that never rendered are empty."""

    def __init__(self, count: int, seed: int) -> None:
        self.count = count
        self.random = random.Random(seed)
        self.free = Bag(range(count))
        self.empty = Bag(range(count))
        self._resident: list[dict[str, None]] = [{} for _ in range(count)]  # the most recently used one last
        self._holders: dict[str, dict[int, None]] = {}
        self._copies: Counter[str] = Counter()

    def resident(self, replica: int) -> tuple[str, ...]:
        """Return pairs that it has ready, the loaded one first."""
        return tuple(reversed(self._resident[replica]))

    def elsewhere(self, replica: int) -> Container[str]:
        """Return pairs that others have ready."""
        return _Elsewhere(self._copies, self._resident[replica])

    def warm(self, pair: str) -> list[int]:
        """Return the free ones that have the pair ready."""
        return [replica for replica in self._holders.get(pair, ()) if replica in self.free]

    def take(self, replica: int, pair: str) -> bool:
        """Start a render of the pair on a free replica; whether the pair was ready."""
        self.free.discard(replica)
        if replica in self.empty:
            self.empty.discard(replica)
        resident = self._resident[replica]
        warm = pair in resident
        if warm:
            del resident[pair]
        else:
            self._holders.setdefault(pair, {})[replica] = None
            self._copies[pair] += 1
        resident[pair] = None
        if len(resident) > RESIDENT:
            self._evict(replica)
        return warm

    def _evict(self, replica: int) -> None:
        pair = next(iter(self._resident[replica]))
        del self._resident[replica][pair]
        del self._holders[pair][replica]
        self._copies[pair] -= 1


class Bag:
    """Distinct numbers, of which a random one is found as fast as a certain one."""

    def __init__(self, members: Iterable[int]) -> None:
        self._members = list(members)
        self._places = {member: place for place, member in enumerate(self._members)}

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[int]:
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

    def any(self, source: random.Random) -> int:
        return source.choice(self._members)


class _Elsewhere(Container[str]):
    """Copies are counted over all replicas; this one's own does not count."""

    def __init__(self, copies: Counter[str], own: Collection[str]) -> None:
        self._copies = copies
        self._own = own

    def __contains__(self, pair: object) -> bool:
        return isinstance(pair, str) and self._copies[pair] > (pair in self._own)
