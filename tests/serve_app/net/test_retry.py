"""Retries with exponential backoff: which faults, how often, and never beyond the deadline."""

import time

import pytest

from serve_app.net import Deadline, NetPolicy, Transient, retry

QUICK = NetPolicy(attempts=3, backoff_s=0.01, max_backoff_s=0.05)


class Failing:
    """Raises Transient a number of times, then returns how often it was called."""

    def __init__(self, times: int, retry_after_s: float | None = None) -> None:
        self.calls = 0
        self._fault = Transient("busy", retry_after_s)
        self._times = times

    def __call__(self) -> int:
        self.calls += 1
        if self.calls <= self._times:
            raise self._fault
        return self.calls


def test_a_transient_fault_is_retried() -> None:
    assert retry(Failing(2), QUICK, Deadline(5)) == 3


def test_the_last_attempt_tells_the_fault() -> None:
    work = Failing(9)
    with pytest.raises(Transient, match="busy"):
        retry(work, QUICK, Deadline(5))
    assert work.calls == 3


def test_other_faults_are_not_retried() -> None:
    calls = []

    def work() -> None:
        calls.append(1)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        retry(work, QUICK, Deadline(5))
    assert len(calls) == 1


def test_no_wait_outlasts_the_deadline() -> None:
    work = Failing(9, retry_after_s=60)
    started = time.monotonic()
    with pytest.raises(Transient):
        retry(work, NetPolicy(attempts=9, max_backoff_s=60), Deadline(0.1))
    assert work.calls == 1
    assert time.monotonic() - started < 30


def test_a_server_may_ask_for_a_longer_wait_up_to_the_policys() -> None:
    started = time.monotonic()
    assert retry(Failing(1, retry_after_s=60), QUICK, Deadline(5)) == 2
    assert 0.05 <= time.monotonic() - started < 30
