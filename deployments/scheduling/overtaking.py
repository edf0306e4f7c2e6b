"""Bounded overtaking: how far a render may pass older ones of its line, and which were passed for too long.

Affinity lets a render with a warm pair start before older renders. Two bounds keep that from starving them: a reach in
places, and a patience in seconds after which a render that was passed goes first.

Example:
    overtaking = Overtaking(patience_s=120)
    overtaking.started(render, now=time())
    overtaking.before(now=time())[render.line].reach
"""

from collections import OrderedDict, deque
from dataclasses import dataclass

from serve_app.jobs.records import Line, Waiting

_STEPS = 16  # in which a patience is remembered
_IDLE_S = 3600.0
_LEAST_REACH = 4  # a small fleet starts nothing for so long that it would never keep a pair
# Of the renders that a line starts within the patience. With all of them, whatever fits no replica at once is overdue
# when it comes to the front, and all that is overdue goes to replicas that have something else ready.
_REACH = 0.15


@dataclass(frozen=True)
class Passing:
    """How renders of one line pass each other."""

    overdue_before: int  # those with a smaller id have waited for the patience since a younger one was started
    reach: int  # places by which a render may lie behind the oldest one and still be started before it


NOTHING_STARTED = Passing(overdue_before=0, reach=_LEAST_REACH)


@dataclass
class _Step:
    """What a line started from `at` until the next step."""

    at: float
    highest_id: int  # started so far, in this step and all before
    started: int = 0


class Overtaking:
    """Remembers what each line has started within the last `patience_s` seconds, and the highest id before that.

    A render that goes back into the queue keeps its id, and so comes out overdue. A line that starts nothing for an
    hour is forgotten.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._lines: OrderedDict[Line, deque[_Step]] = OrderedDict()  # the one that started something last comes last

    def started(self, render: Waiting, now: float) -> None:
        """Record that the render leaves the queue. `now` never goes back."""
        steps = self._lines.setdefault(render.line, deque())
        self._lines.move_to_end(render.line)
        if not steps or now - steps[-1].at >= self._patience_s / _STEPS:
            steps.append(_Step(now, steps[-1].highest_id if steps else 0))
        steps[-1].highest_id = max(steps[-1].highest_id, render.render_id)
        steps[-1].started += 1
        while len(steps) > 1 and steps[1].at <= now - self._patience_s:
            steps.popleft()
        self._forget_idle(now)

    def before(self, now: float) -> dict[Line, Passing]:
        """Return how renders of each line that is remembered may pass each other now."""
        return {line: self._passing(steps, now - self._patience_s) for line, steps in self._lines.items()}

    def _passing(self, steps: deque[_Step], patience_began: float) -> Passing:
        overdue_before = max((step.highest_id for step in steps if step.at <= patience_began), default=0)
        started = sum(step.started for step in steps if step.at > patience_began)
        return Passing(overdue_before, max(_LEAST_REACH, int(_REACH * started)))

    def _forget_idle(self, now: float) -> None:
        # Ends at the line that has just started something.
        while next(iter(self._lines.values()))[-1].at < now - _IDLE_S:
            self._lines.popitem(last=False)
