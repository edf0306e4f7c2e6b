"""One attempt of one render, as the generating thread and the event loop both see it."""

import asyncio
import threading
from dataclasses import dataclass, field
from time import monotonic

from serve_app.errors import DeadlineExceeded
from serve_app.jobs.records import Claim

_OVERDUE_S = 600.0  # no single step, decode, encoding or upload takes longer


class AttemptAborted(Exception):
    """The attempt was told to stop: canceled, or its lease is no longer valid."""


@dataclass
class Attempt:
    """Shared state of a running attempt; the stop flag is set on the loop and read in the thread."""

    claim: Claim
    timeout_s: float
    started: float = field(default_factory=monotonic)
    steps_done: int = 0
    lease_lost: bool = False
    look: asyncio.Event = field(default_factory=asyncio.Event)  # a hint that the store has news of it
    _stop: threading.Event = field(default_factory=threading.Event)

    def stop(self, *, lease_lost: bool = False) -> None:
        """Ask for an end at the next step, or after the last one before encoding, or before storing."""
        self.lease_lost = self.lease_lost or lease_lost
        self._stop.set()

    def check(self) -> None:
        """Called between two pieces of work.

        Raises:
            AttemptAborted: `stop` was called.
        """
        if self._stop.is_set():
            raise AttemptAborted

    @property
    def overdue(self) -> bool:
        """Whether the attempt is past its deadline by so much that no step can be on its way any more."""
        return monotonic() - self.started > self.timeout_s + _OVERDUE_S

    def on_step(self, steps_done: int) -> None:
        """Called in the generating thread after each denoising step.

        Raises:
            AttemptAborted: `stop` was called.
            DeadlineExceeded: the attempt has run for longer than `timeout_s`.
        """
        self.steps_done = steps_done
        self.check()
        if monotonic() - self.started > self.timeout_s:
            raise DeadlineExceeded(
                f"the render was stopped after {self.timeout_s:g} s at step {steps_done} of "
                f"{self.claim.spec.sample_steps}; ask for fewer frames, steps or pixels, or raise render_timeout_s"
            )
