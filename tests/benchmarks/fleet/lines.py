"""The simulated queue of the service, which gives out the candidates that the job store would."""

from collections import OrderedDict, deque
from collections.abc import Collection
from itertools import islice

from serve_app.jobs.records import Line, Waiting


class Lines:
    """The same renders twice: each line in order of arrival, and of each line those of one pair."""

    def __init__(self) -> None:
        self._lines: dict[Line, OrderedDict[int, Waiting]] = {}
        self._pairs: dict[tuple[Line, str], deque[Waiting]] = {}

    @property
    def tenants(self) -> set[str]:
        """Return those that have something waiting."""
        return {line.tenant for line in self._lines}

    def add(self, render: Waiting) -> None:
        self._lines.setdefault(render.line, OrderedDict())[render.render_id] = render
        self._pairs.setdefault((render.line, render.pair_key), deque()).append(render)

    def remove(self, render: Waiting) -> None:
        line = self._lines[render.line]
        del line[render.render_id]
        if not line:
            del self._lines[render.line]
        pair = self._pairs[render.line, render.pair_key]
        pair.remove(render)
        if not pair:
            del self._pairs[render.line, render.pair_key]

    def candidates(self, tenants: Collection[str], pairs: Collection[str], window: int) -> list[Waiting]:
        """Return the oldest `window` renders of each line, and the oldest of each pair in each line, by arrival."""
        found: dict[int, Waiting] = {}
        for line, renders in self._lines.items():
            if line.tenant in tenants:
                found.update(islice(renders.items(), window))
                same = (self._pairs[line, pair][0] for pair in pairs if (line, pair) in self._pairs)
                found.update((render.render_id, render) for render in same)
        return [found[render_id] for render_id in sorted(found)]
