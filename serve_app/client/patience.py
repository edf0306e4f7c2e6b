"""Retries with exponential backoff, jitter and Retry-After, within the caller's patience.

Example:
    patience = Patience(60)
    while isinstance(answer := send(call), Refusal):
        time.sleep(patience.pause(answer))  # raises the refusal's error instead, if a retry cannot help

This module computes how long to wait and does not wait itself, so that both clients can share it.
"""

import random
import time

import httpx2

from serve_app.client.failures import Refusal

_FIRST_S, _LONGEST_S = 0.25, 10.0

PATIENCE_S = 60.0
"""How long a call is retried by default: a service that restarts is back by then."""

TIMEOUT = httpx2.Timeout(60.0, connect=10.0)
"""Of one attempt. The read timeout is longer than the heartbeats of an event stream are apart."""


class Patience:
    """The time that may pass without progress, and the waits that grow within it."""

    def __init__(self, seconds: float = PATIENCE_S) -> None:
        self._seconds = seconds
        self.progress()

    def progress(self) -> None:
        """Note that something arrived: the time starts anew."""
        self._since = time.monotonic()
        self._backoff_s = _FIRST_S

    def pause(self, refusal: Refusal) -> float:
        """Return the seconds to wait before the next attempt; no shorter than Retry-After.

        Raises:
            ServiceError: the refusal's, where it is no temporary one, or the wait would outlast the patience.
        """
        backoff_s = self._backoff_s * random.uniform(1, 1.5)  # noqa: S311  jitter is no secret
        pause_s = max(refusal.retry_after_s or 0.0, backoff_s)
        if not refusal.temporary or time.monotonic() + pause_s > self._since + self._seconds:
            raise refusal.error
        self._backoff_s = min(2 * self._backoff_s, _LONGEST_S)
        return pause_s
