"""The observer seam: signals of a render's life, at which metrics, events, webhooks and traces attach.

An observer is a subclass that overrides the signals it wants:

    class Log(Observer):
        def ended(self, claim: Claim, outcome: Outcome) -> None:
            print(claim.request_id, claim.index, outcome.end)

    observers = Observers(Log(), QueueMetrics())
    observers.ended(claim, outcome)  # reaches both; what one of them raises is logged

`deployments.metrics.service_observers` lists those of this service. Each actor has instances of its own, in its own
process, and sends the signals that arise there:

    accepted     Ingress      a request became durable
    load         Dispatcher   the totals of the queue were read
    started      Generator    an attempt begins
    step         Generator    a denoising step is done
    published    Generator    the output is stored, and the request says so
    ended        Generator    the attempt is over, whatever its end

A render may be started several times, since an attempt whose replica dies sends no `ended`; `published` comes once.
A request that is canceled before it was claimed sends nothing after `accepted`.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from serve_app.errors import RenderError
from serve_app.jobs.load import Load
from serve_app.jobs.records import Claim, NewRequest, Output

logger = logging.getLogger("ray.serve")


class End(StrEnum):
    """How an attempt ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    RELEASED = "released"  # its device failed; another replica renders it
    FENCED = "fenced"  # its lease was lost, so the store took nothing from it; another attempt counts


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of an attempt."""

    end: End
    error: RenderError | None = None  # of a failed one
    replica_s: float | None = None  # seconds that it took the replica, where it made frames


class Observer:
    """Base class with one method for each signal; none does anything.

    All are called on the event loop of their actor, between two pieces of its work: return within a millisecond, and
    hand anything longer to a task or a thread.
    """

    def accepted(self, request: NewRequest) -> None:
        """Hear that a request became durable."""

    def load(self, model: str, load: Load) -> None:
        """Hear what waits and what runs of a model."""

    def started(self, claim: Claim) -> None:
        """Hear that an attempt begins."""

    def step(self, claim: Claim, steps_done: int) -> None:
        """Hear that `steps_done` denoising steps of the attempt are done."""

    def published(self, claim: Claim, output: Output) -> None:
        """Hear that the video of a claim can be downloaded."""

    def ended(self, claim: Claim, outcome: Outcome) -> None:
        """Hear how an attempt ended. After `published`, where there is an output."""


class Observers(Observer):
    """Sends each signal to every observer, in their order. An observer that raises is logged and changes nothing."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def accepted(self, request: NewRequest) -> None:
        """Send that a request became durable."""
        self._send("accepted", lambda observer: observer.accepted(request))

    def load(self, model: str, load: Load) -> None:
        """Send what waits and what runs of a model."""
        self._send("load", lambda observer: observer.load(model, load))

    def started(self, claim: Claim) -> None:
        """Send that an attempt begins."""
        self._send("started", lambda observer: observer.started(claim))

    def step(self, claim: Claim, steps_done: int) -> None:
        """Send that a denoising step is done."""
        self._send("step", lambda observer: observer.step(claim, steps_done))

    def published(self, claim: Claim, output: Output) -> None:
        """Send that a video can be downloaded."""
        self._send("published", lambda observer: observer.published(claim, output))

    def ended(self, claim: Claim, outcome: Outcome) -> None:
        """Send how an attempt ended."""
        self._send("ended", lambda observer: observer.ended(claim, outcome))

    def _send(self, signal: str, call: Callable[[Observer], None]) -> None:
        for observer in self._observers:
            try:
                call(observer)
            except Exception:
                logger.exception("the observer %s failed at `%s`", type(observer).__name__, signal)
