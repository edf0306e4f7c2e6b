"""An attempt of a render, and its lease: heartbeats keep the claim, and bring cancellation back.

The holder of the lease in the store may write the end of a render. While an attempt runs, a heartbeat prolongs the
lease and records progress. Its answer says whether the render was canceled, or whether the lease was lost, so that
another attempt has the render now. Then the fencing token of the claim blocks every write of this attempt.

Example:
    attempt = Attempt(claim, settings.render_timeout_s)
    async with Lease(attempt, store, settings, leave=leave_process):
        frames = await asyncio.to_thread(pipeline.render, spec, on_step=attempt.on_step)
        attempt.check()
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from types import TracebackType

from serve_app.errors import DeadlineExceeded
from serve_app.jobs.records import Claim, Preview
from serve_app.jobs.store import JobStore
from serve_app.settings import Settings

logger = logging.getLogger("ray.serve.wan")

# Seconds past its deadline after which an attempt hangs: no single step, decode, encoding or upload takes as long.
HANGS_AFTER_S = 600.0


class AttemptAborted(Exception):
    """The attempt was told to stop: its render was canceled, or its lease is lost."""


@dataclass
class Attempt:
    """One attempt of one render, shared by the device's thread and the event loop.

    The stop flag is set on the loop and read in the thread.
    """

    claim: Claim
    timeout_s: float
    started: float = field(default_factory=monotonic)
    steps_done: int = 0
    lease_lost: bool = False
    stopped: asyncio.Event = field(default_factory=asyncio.Event)  # as the loop sees `stop`
    look: asyncio.Event = field(default_factory=asyncio.Event)  # set: ask the store now whether it was canceled
    preview: Preview | None = None  # stored by the next heartbeat
    _alive: float = 0.0  # the time of the last call of `lives`
    _stop: threading.Event = field(default_factory=threading.Event)

    def stop(self, *, lease_lost: bool = False) -> None:
        """Stop the attempt at its next step; after the last step, before encoding or before storing."""
        self.lease_lost = self.lease_lost or lease_lost
        self._stop.set()
        self.stopped.set()

    def check(self) -> None:
        """Raise AttemptAborted if `stop` was called. Call it between two parts of the work."""
        if self._stop.is_set():
            raise AttemptAborted

    @property
    def hangs(self) -> bool:
        """Return whether the attempt is so far past its deadline that no step can still be running."""
        return monotonic() - max(self.started + self.timeout_s, self._alive) > HANGS_AFTER_S

    def lives(self) -> None:
        """Record that the attempt does not hang: it waits for something else than its device."""
        self._alive = monotonic()

    def on_step(self, steps_done: int) -> None:
        """Record a finished denoising step. Called in the device's thread.

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


class Lease:
    """Sends heartbeats for an attempt while its block runs."""

    def __init__(self, attempt: Attempt, store: JobStore, settings: Settings, leave: Callable[[str], None]) -> None:
        """Take the attempt; `leave` ends this process, with a reason, because only that frees a device that hangs."""
        self._attempt = attempt
        self._store = store
        self._settings = settings
        self._leave = leave
        self._over = asyncio.Event()

    async def __aenter__(self) -> None:
        # A child of the attempt's own task, whose context is already detached.
        self._heartbeats = asyncio.create_task(self._beat_until_over())

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._over.set()
        await self._heartbeats

    async def _beat_until_over(self) -> None:
        while not await self._over_before_beat():
            if self._attempt.hangs:
                self._leave(f"render {self._attempt.claim.render_id} hangs")
            await self._beat()

    async def _over_before_beat(self) -> bool:
        """Wait until the next heartbeat is due, or a cancellation is hinted; return whether the attempt is over."""
        waits = [asyncio.create_task(event.wait()) for event in (self._attempt.look, self._over)]
        await asyncio.wait(waits, timeout=self._settings.heartbeat_s, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        self._attempt.look.clear()
        return self._over.is_set()

    async def _beat(self) -> None:
        attempt = self._attempt
        preview, attempt.preview = attempt.preview, None
        try:
            canceled = await self._store.claims.renew(
                attempt.claim, attempt.steps_done, self._settings.lease_s, preview
            )
        except Exception:
            # The store may be back before the lease runs out. If not, the next answer says that it was lost.
            logger.exception("a lease was not renewed; the render goes on")
            return
        if canceled is None:
            attempt.stop(lease_lost=True)
        elif canceled:
            attempt.stop()
