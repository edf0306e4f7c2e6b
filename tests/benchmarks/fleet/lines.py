"""The simulated queue, which gives out candidates as the job store does."""

from collections import OrderedDict, deque
from itertools import islice

from serve_app.jobs.records import Line, Waiting


class Lines:
    def __init__(self) -> None:
        self._lines: dict[Line, OrderedDict[int, Waiting]] = {}
        self._pairs: dict[tuple[Line, str], deque[Waiting]] = {}

    def __len__(self):
        return sum(map(len, self._lines.values()))

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

    @property
    def tenants(self) -> set[str]:
        return {line.tenant for line in self._lines}

    def candidates(self, tenants, pairs, window: int) -> list[Waiting]:
        found = {}
        for line, renders in self._lines.items():
            if line.tenant in tenants:
                found.update(islice(renders.items(), window))
                for pair in pairs:
                    if oldest := self._pairs.get((line, pair)):
                        found[oldest[0].render_id] = oldest[0]
        return [found[i] for i in sorted(found)]
