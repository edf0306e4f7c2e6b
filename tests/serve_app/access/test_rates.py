"""The token bucket of a tenant's calls."""

import pytest

from serve_app.access import rates
from serve_app.access.rates import Rate, Rates


class Clock:
    """A clock that a test turns."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(rates, "monotonic", clock)
    return clock


def test_a_burst_passes_and_then_the_rate(clock: Clock) -> None:
    taken, rate = Rates(), Rate(per_s=2, burst=3)
    assert [taken.take("a", rate).allowed for _ in range(4)] == [True, True, True, False]
    clock.now = 0.5
    assert [taken.take("a", rate).allowed for _ in range(2)] == [True, False]
    clock.now = 100
    assert [taken.take("a", rate).allowed for _ in range(4)] == [True, True, True, False]


def test_tenants_do_not_share_a_bucket(clock: Clock) -> None:
    taken, rate = Rates(), Rate(per_s=1, burst=1)
    assert [taken.take(tenant, rate).allowed for tenant in "aabb"] == [True, False, True, False]


def test_a_refused_call_learns_when_to_come_again(clock: Clock) -> None:
    taken, rate = Rates(), Rate(per_s=0.1, burst=2)
    assert [(state.remaining, state.full_in_s) for state in (taken.take("a", rate), taken.take("a", rate))] == [
        (1, 10),
        (0, 20),
    ]
    refused = taken.take("a", rate)
    assert (refused.allowed, refused.next_in_s) == (False, 10)
    clock.now = 10
    assert taken.take("a", rate).allowed


def test_several_processes_share_a_rate(clock: Clock) -> None:
    assert Rate(per_s=10, burst=20).shared_by(4) == Rate(per_s=2.5, burst=5)
    assert Rate(per_s=1, burst=1).shared_by(4) == Rate(per_s=0.25, burst=1)
