"""What may go wrong between this service and a source, before it is known what to tell the client, and retrying it."""

from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_exponential, wait_random

from serve_app.loras.sources.deadline import Deadline
from serve_app.loras.sources.policy import SourcePolicy
from serve_app.loras.sources.wording import unavailable

T = TypeVar("T")


class Transient(Exception):
    """The same may succeed when tried again. `reason` is free of addresses and credentials."""

    def __init__(self, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_s = retry_after_s


class Changed(Exception):
    """The file is no longer the one that was identified."""


class Forbidden(Exception):
    """The policy forbids to go on; `str` says why."""


def attempt(work: Callable[[], T], policy: SourcePolicy, deadline: Deadline, name: str) -> T:
    """The result of `work`, called again with growing pauses as long as it raises Transient.

    Raises:
        LoraSourceUnavailable: it still did at the last attempt, or no time is left for another.
    """
    backoff = wait_exponential(policy.backoff_s, policy.max_backoff_s) + wait_random(0, policy.backoff_s)

    def wait(state: RetryCallState) -> float:
        fault = state.outcome.exception() if state.outcome else None
        asked = fault.retry_after_s if isinstance(fault, Transient) and fault.retry_after_s else 0.0
        return min(max(asked, backoff(state)), policy.max_backoff_s)

    def stop(state: RetryCallState) -> bool:
        return state.attempt_number >= policy.attempts or state.upcoming_sleep >= deadline.left()

    retrying = Retrying(wait=wait, stop=stop, retry=retry_if_exception_type(Transient), reraise=True)
    try:
        return retrying(work)
    except Transient as fault:
        raise unavailable(name, f"{fault.reason}; retry later") from None  # what lies beneath may quote signed URLs
