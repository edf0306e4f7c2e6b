"""The queue, which offers the policy the same candidates as the job store does."""

from collections import OrderedDict, defaultdict
from collections.abc import Collection
from itertools import islice
from typing import Any

from serve_app.jobs.records import Line, Waiting


class Queue:
    """Waiting renders by line, and by pair within a line, each in order of arrival."""

    def __init__(self) -> None:
        self._lines: defaultdict[Line, OrderedDict[int, Waiting]] = defaultdict(OrderedDict)
        self._pairs: defaultdict[tuple[Line, str], OrderedDict[int, Waiting]] = defaultdict(OrderedDict)

    @property
    def lines(self) -> list[Line]:
        """Those in which a render waits."""
        return list(self._lines)

    def add(self, render: Waiting) -> None:
        """A render arrives."""
        self._lines[render.line][render.render_id] = render
        self._pairs[render.line, render.pair_key][render.render_id] = render

    def take(self, render: Waiting) -> None:
        """A render is started."""
        _drop(self._lines, render.line, render.render_id)
        _drop(self._pairs, (render.line, render.pair_key), render.render_id)

    def candidates(self, lines: Collection[Line], pairs: Collection[str], window: int) -> list[Waiting]:
        """The oldest `window` renders of each line, and for each pair its oldest of each line; in order of arrival."""
        found = {render.render_id: render for line in lines for render in islice(self._lines[line].values(), window)}
        for line in lines:
            for pair in pairs:
                if (line, pair) in self._pairs:
                    oldest = next(iter(self._pairs[line, pair].values()))
                    found[oldest.render_id] = oldest
        return [found[render_id] for render_id in sorted(found)]


def _drop(queues: dict[Any, OrderedDict[int, Waiting]], key: Any, render_id: int) -> None:
    del queues[key][render_id]
    if not queues[key]:
        del queues[key]
