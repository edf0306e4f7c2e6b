"""Observers (hooks): signals of a render's life cycle, for metrics, logs, traces and other reactions.

An observer is a subclass that overrides the signals it wants:

    class Log(Observer):
        def ended(self, claim: Claim, outcome: Outcome) -> None:
            print(claim.request_id, claim.index, outcome.end)

    observers = Observers(Log(), QueueMetrics())
    observers.ended(claim, outcome)  # reaches both; what one of them raises is logged

`deployments.observability.metrics.service_observers` lists the observers of this service. Each actor has its own
instances, in its own process, and sends the signals of what happens there:

    accepted     Ingress      a request became durable
    refused      Ingress      a request was refused
    load         Dispatcher   the totals of the queue were read
    oldest       Dispatcher   how long the oldest render of each priority has waited was read
    lost         Dispatcher   attempts ended without a word
    ready        Generator    it has started, and takes renders
    started      Generator    an attempt begins
    read         Generator    LoRA files were read into memory
    step         Generator    a denoising step is done
    prepared     Generator    LoRA files for a next render were fetched and checked, or the device was free first
    published    Generator    the output is stored, and the request says so
    ended        Generator    the attempt is over, whatever its end
    finished     all three    renders have ended in the store, by a transaction of this actor
    told         Ingress      an attempt at a webhook's delivery was made

A render may be started several times, since an attempt whose replica dies sends no `ended`; `published` comes once.
Every render is in `finished` once: sent by its Generator; by the Ingress if it was canceled while it waited; by the
Dispatcher if its replicas died too often.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from serve_app.errors import RenderError
from serve_app.jobs.endings import RenderEnd
from serve_app.jobs.load import Load
from serve_app.jobs.outbox import DeliveryState
from serve_app.jobs.records import Claim, NewRequest, Output
from serve_app.loras.files import LoraOnDisk
from serve_app.results import CacheUse, StartSeconds
from serve_app.spec import Priority

logger = logging.getLogger("ray.serve.wan")


class End(StrEnum):
    """How an attempt ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    RELEASED = "released"  # its device failed; another replica renders it
    FENCED = "fenced"  # its lease was lost, so the store took nothing from it; another attempt counts


class LoraSource(StrEnum):
    """Where the LoRAs of a render were when it began."""

    LOADED = "loaded"  # the render before had the same ones
    MEMORY = "memory"
    DISK = "disk"  # at least one was read from its file


class Loss(StrEnum):
    """Why an attempt ended without a word of its own."""

    CALL = "call"  # the call to the replica failed
    LEASE = "lease"  # nothing was heard of it until its lease ran out


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of an attempt."""

    end: End
    error: RenderError | None = None  # of a failed one
    replica_s: float | None = None  # seconds that it took the replica, if it made frames
    loras: LoraSource | None = None  # where its LoRAs were, if it made frames
    embeddings: CacheUse = field(default_factory=CacheUse)  # of its prompts


class Observer:
    """Base class with one method for each signal. Each method is called when its event happens, and does nothing here.

    All are called on the event loop of their actor, between two pieces of its work: return within a millisecond, and
    hand anything longer to a task or a thread.
    """

    def accepted(self, request: NewRequest) -> None:
        """Hear that a request became durable."""

    def refused(self, code: str) -> None:
        """Hear that a request was refused, with that error code."""

    def load(self, model: str, load: Load) -> None:
        """Hear what waits and what runs of a model."""

    def oldest(self, model: str, waits: Mapping[Priority, float]) -> None:
        """Hear for how many seconds the oldest queued render of each priority of a model has waited, if one is."""

    def lost(self, model: str, loss: Loss, attempts: int) -> None:
        """Hear that `attempts` of a model ended without a word."""

    def ready(self, model: str, start: StartSeconds) -> None:
        """Hear that a Generator takes renders now, and how long its start took."""

    def alive(self) -> None:
        """Hear, every few seconds, that a Generator lives."""

    def started(self, claim: Claim) -> None:
        """Hear that an attempt begins."""

    def read(self, model: str, files: Sequence[LoraOnDisk]) -> None:
        """Hear that the LoRAs of a render were read from these files."""

    def step(self, claim: Claim, steps_done: int) -> None:
        """Hear that `steps_done` denoising steps of the attempt are done."""

    def prepared(self, model: str, seconds: float) -> None:
        """Hear for how long LoRA files of a next render were fetched and checked while the device was busy."""

    def published(self, claim: Claim, output: Output) -> None:
        """Hear that the video of a claim can be downloaded."""

    def ended(self, claim: Claim, outcome: Outcome) -> None:
        """Hear how an attempt ended. After `published`, if there is an output."""

    def finished(self, ends: Sequence[RenderEnd]) -> None:
        """Hear which renders have ended, once the store has committed it."""

    def told(self, state: DeliveryState) -> None:
        """Hear what has become of a webhook's delivery after an attempt at it."""


class Observers(Observer):
    """Sends each signal to every observer, in their order. An observer that raises is logged and changes nothing."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def accepted(self, request: NewRequest) -> None:
        """Send that a request became durable."""
        self._send("accepted", lambda observer: observer.accepted(request))

    def refused(self, code: str) -> None:
        """Send that a request was refused."""
        self._send("refused", lambda observer: observer.refused(code))

    def load(self, model: str, load: Load) -> None:
        """Send what waits and what runs of a model."""
        self._send("load", lambda observer: observer.load(model, load))

    def oldest(self, model: str, waits: Mapping[Priority, float]) -> None:
        """Send for how long the oldest queued renders have waited."""
        self._send("oldest", lambda observer: observer.oldest(model, waits))

    def lost(self, model: str, loss: Loss, attempts: int) -> None:
        """Send that attempts ended without a word."""
        self._send("lost", lambda observer: observer.lost(model, loss, attempts))

    def ready(self, model: str, start: StartSeconds) -> None:
        """Send that a Generator takes renders now."""
        self._send("ready", lambda observer: observer.ready(model, start))

    def alive(self) -> None:
        """Send that a Generator lives."""
        self._send("alive", lambda observer: observer.alive())

    def started(self, claim: Claim) -> None:
        """Send that an attempt begins."""
        self._send("started", lambda observer: observer.started(claim))

    def read(self, model: str, files: Sequence[LoraOnDisk]) -> None:
        """Send that LoRA files were read."""
        self._send("read", lambda observer: observer.read(model, files))

    def step(self, claim: Claim, steps_done: int) -> None:
        """Send that a denoising step is done."""
        self._send("step", lambda observer: observer.step(claim, steps_done))

    def prepared(self, model: str, seconds: float) -> None:
        """Send for how long files of a next render were prepared."""
        self._send("prepared", lambda observer: observer.prepared(model, seconds))

    def published(self, claim: Claim, output: Output) -> None:
        """Send that a video can be downloaded."""
        self._send("published", lambda observer: observer.published(claim, output))

    def ended(self, claim: Claim, outcome: Outcome) -> None:
        """Send how an attempt ended."""
        self._send("ended", lambda observer: observer.ended(claim, outcome))

    def finished(self, ends: Sequence[RenderEnd]) -> None:
        """Send which renders have ended."""
        self._send("finished", lambda observer: observer.finished(ends))

    def told(self, state: DeliveryState) -> None:
        """Send what has become of a webhook's delivery."""
        self._send("told", lambda observer: observer.told(state))

    def _send(self, signal: str, call: Callable[[Observer], None]) -> None:
        for observer in self._observers:
            try:
                call(observer)
            except Exception:
                logger.exception("the observer %s failed at `%s`", type(observer).__name__, signal)
