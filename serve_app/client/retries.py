"""Retries with exponential backoff, jitter and Retry-After, within the caller's patience.

Example:
    retries = Retries(60)
    while isinstance(answer := send(call), Refusal):
        time.sleep(retries.pause(answer))  # raises the refusal's error instead, if a retry cannot help

This module computes how long to wait and does not wait itself, so that both clients can share it.
"""

import random
import time

import httpx2

from serve_app.client.failures import Refusal

_FIRST_S, _LONGEST_S = 0.25, 10.0

PATIENCE_S = 60.0
"""Default time in which a call is retried; a restart of the service takes less."""

TIMEOUT = httpx2.Timeout(60.0, connect=10.0)
"""Timeouts of one attempt. The read timeout is longer than the interval of heartbeats in an event stream."""


class Retries:
    """The time that may pass without progress, and the backoff within it."""

    def __init__(self, seconds: float = PATIENCE_S) -> None:
        self._seconds = seconds
        self.progress()

    def progress(self) -> None:
        """Record progress (data arrived): the time starts again."""
        self._since = time.monotonic()
        self._backoff_s = _FIRST_S

    def pause(self, refusal: Refusal) -> float:
        """Return the seconds to wait before the next attempt; no shorter than Retry-After.

        Raises:
            ServiceError: the refusal's, if it is not temporary, or too little of the time is left for the wait.
        """
        backoff_s = self._backoff_s * random.uniform(1, 1.5)  # noqa: S311  jitter is no secret
        pause_s = max(refusal.retry_after_s or 0.0, backoff_s)
        if not refusal.temporary or time.monotonic() + pause_s > self._since + self._seconds:
            raise refusal.error
        self._backoff_s = min(2 * self._backoff_s, _LONGEST_S)
        return pause_s
