"""Bounded overtaking: how far a render may pass older ones of its line, and which were passed for too long.

Affinity lets a render with a warm pair start before older renders. Two bounds protect the older ones from starvation:
a reach in places, and a patience in seconds, after which a render that was overtaken goes first.

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
_LEAST_REACH = 4  # a small fleet starts so few renders that a smaller reach would never allow affinity
# A share of the renders that a line starts within the patience. With all of them, a render without a warm replica is
# always overdue at the front of its line, and overdue renders go to replicas that have other pairs ready.
_REACH = 0.15


@dataclass(frozen=True)
class Passing:
    """How far renders of one line may overtake each other."""

    overdue_before: int  # renders with a smaller id were overtaken more than the patience ago
    reach: int  # a render at most this many places behind the oldest one may start before it


NOTHING_STARTED = Passing(overdue_before=0, reach=_LEAST_REACH)


@dataclass
class _Step:
    """The renders that a line started from `at` until the next step."""

    at: float
    highest_id: int  # started so far, in this step and all before
    started: int = 0


class Overtaking:
    """Records the renders that each line has started within the last `patience_s` seconds, and the highest id before.

    A render that returns into the queue keeps its id, so it is overdue. A line that starts nothing for an hour is
    forgotten.
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
        """Return the bounds on overtaking now, for each recorded line."""
        return {line: self._passing(steps, now - self._patience_s) for line, steps in self._lines.items()}

    def _passing(self, steps: deque[_Step], patience_began: float) -> Passing:
        overdue_before = max((step.highest_id for step in steps if step.at <= patience_began), default=0)
        started = sum(step.started for step in steps if step.at > patience_began)
        return Passing(overdue_before, max(_LEAST_REACH, int(_REACH * started)))

    def _forget_idle(self, now: float) -> None:
        # Stops at the first line that is not idle: they are in the order of their last start.
        while next(iter(self._lines.values()))[-1].at < now - _IDLE_S:
            self._lines.popitem(last=False)
