"""Retries of transient faults with exponential backoff, within a deadline."""

import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, wait_exponential, wait_random

Result = TypeVar("Result")


class Transient(Exception):
    """A retry of the same operation may succeed. `reason` contains no address and no credentials."""

    def __init__(self, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_s = retry_after_s


class TooSlow(Transient):
    """A server sends, but too slowly. It is not retried, because a retry would be as slow."""


class Deadline:
    """The end of an operation of several steps, `seconds` from now."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds left, at least 0."""
        return max(0.0, self._end - time.monotonic())


class Backoff(Protocol):
    """How often to try, and how long to wait between two attempts; see `guard.NetPolicy`."""

    @property
    def attempts(self) -> int:
        """Return the largest number of attempts."""

    @property
    def backoff_s(self) -> float:
        """Return the seconds to wait before the first retry."""

    @property
    def max_backoff_s(self) -> float:
        """Return the longest wait in seconds."""


def retry(work: Callable[[], Result], policy: Backoff, deadline: Deadline) -> Result:
    """Return the result of `work`, which is retried with exponential backoff while it raises Transient (not TooSlow).

    A server's Retry-After prolongs a wait, up to the policy's longest.

    Raises:
        Transient: the last attempt failed, or no time is left for another one.
    """
    backoff = wait_exponential(policy.backoff_s, policy.max_backoff_s) + wait_random(0, policy.backoff_s)

    def wait(state: RetryCallState) -> float:
        fault = state.outcome.exception() if state.outcome else None
        asked = fault.retry_after_s if isinstance(fault, Transient) and fault.retry_after_s else 0.0
        return min(max(asked, backoff(state)), policy.max_backoff_s)

    def stop(state: RetryCallState) -> bool:
        return state.attempt_number >= policy.attempts or state.upcoming_sleep >= deadline.left()

    return Retrying(wait=wait, stop=stop, retry=retry_if_exception(_is_worth_trying), reraise=True)(work)


def _is_worth_trying(fault: BaseException) -> bool:
    return isinstance(fault, Transient) and not isinstance(fault, TooSlow)
