"""Who may join the queue, and when the others should come again."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.errors import AdmissionError, QueueFull, TenantQueueFull, WaitTooLong
from serve_app.jobs.admission import Limits, admit
from serve_app.jobs.load import Amount, Load
from serve_app.jobs.records import Line
from serve_app.spec import Priority
from tests.serve_app.jobs.helpers import new_request

MINE, MINE_HIGH, THEIRS = Line("me", Priority.NORMAL), Line("me", Priority.HIGH), Line("they", Priority.NORMAL)


def ask(load: Load, limits: Limits, costs: Sequence[float] = (10.0,), line: Line = MINE) -> Load:
    return admit(new_request(costs=costs, tenant=line.tenant, priority=line.priority), load, limits)


def refused(load: Load, limits: Limits, costs: Sequence[float] = (10.0,), line: Line = MINE) -> AdmissionError:
    with pytest.raises(AdmissionError) as refusal:
        ask(load, limits, costs, line)
    return refusal.value


def test_without_limits_everybody_is_let_in() -> None:
    load = ask(Load({THEIRS: Amount(10**6, 1e9)}), Limits(), [1.0] * 1000)
    assert load.lines[MINE] == Amount(1000, 1000)


def test_who_is_let_in_counts_at_once() -> None:
    limits = Limits(max_queued=3)
    load = ask(ask(Load(), limits, [10.0, 20.0]), limits, [5.0], THEIRS)
    assert load.lines == {MINE: Amount(2, 30), THEIRS: Amount(1, 5)}
    assert isinstance(refused(load, limits), QueueFull)


def test_a_full_queue_says_when_there_will_be_room() -> None:
    load = Load({MINE: Amount(4, 40), THEIRS: Amount(6, 160)}, replicas=4)
    refusal = refused(load, Limits(max_queued=11), [10.0] * 3)  # two too many, at 20 s each, on 4 replicas
    assert isinstance(refusal, QueueFull)
    assert (refusal.retry_after_s, refusal.status) == (10, 429)
    assert refusal.details == {"queued": 10, "limit": 11, "limit_name": "max_queued", "retry_after_s": 10}
    assert "10 renders wait already and the limit is 11" in refusal.message


def test_what_never_fits_is_not_told_to_come_again() -> None:
    refusal = refused(Load(), Limits(max_queued=2), [1.0] * 3)
    assert refusal.retry_after_s is None
    assert "send fewer in one request" in refusal.message
    assert "retry_after_s" not in refusal.details


def test_the_limit_of_a_tenant_counts_all_its_lines_and_no_others() -> None:
    load = Load({MINE: Amount(1, 10), MINE_HIGH: Amount(1, 10), THEIRS: Amount(100, 1)})
    limits = Limits(max_queued_per_tenant=2)
    assert isinstance(refused(load, limits), TenantQueueFull)
    assert ask(load, Limits(max_queued_per_tenant=3)).of_tenant("me").renders == 3
    assert ask(load, limits, line=Line("new", Priority.LOW))


def test_the_wait_that_counts_is_that_of_the_last_render() -> None:
    load = Load({MINE: Amount(1, 50)})
    assert ask(load, Limits(max_wait_s=60), [10.0, 1000.0])
    refusal = refused(load, Limits(max_wait_s=60), [10.1, 1000.0])
    assert isinstance(refusal, WaitTooLong)
    assert refusal.details == {"expected_wait_s": 60.1, "limit_s": 60, "retry_after_s": 1}


def test_the_wait_is_as_priority_and_weight_have_it() -> None:
    load = Load({MINE: Amount(10, 100), THEIRS: Amount(10, 1000)})
    assert isinstance(refused(load, Limits(max_wait_s=199)), WaitTooLong)  # its own 100 s, and as much of theirs
    assert ask(load, Limits(max_wait_s=150, weights={"me": 2.0}))
    assert ask(load, Limits(max_wait_s=0), line=MINE_HIGH)


amounts = st.builds(Amount, st.integers(1, 100), st.floats(0.1, 1000))
loads = st.builds(
    Load,
    st.dictionaries(st.sampled_from([MINE, MINE_HIGH, THEIRS]), amounts),
    st.one_of(st.just(Amount()), amounts),
    st.integers(0, 8),
)


@given(
    load=loads,
    costs=st.lists(st.floats(0.1, 1000), min_size=1, max_size=20),
    limits=st.fixed_dictionaries(
        {
            "max_queued": st.none() | st.integers(1, 300),
            "max_queued_per_tenant": st.none() | st.integers(1, 200),
            "max_wait_s": st.none() | st.floats(0, 10_000),
        }
    ),
)
def test_a_request_is_let_in_within_the_limits_or_told_a_whole_number_of_seconds(
    load: Load, costs: list[float], limits: dict[str, Any]
) -> None:
    try:
        after = ask(load, Limits(**limits), costs)
    except AdmissionError as refusal:
        assert refusal.retry_after_s is None or refusal.retry_after_s >= 1
    else:
        assert after.queued.renders == load.queued.renders + len(costs)
        assert after.queued.renders <= (limits["max_queued"] or after.queued.renders)
        assert after.of_tenant("me").renders <= (limits["max_queued_per_tenant"] or after.of_tenant("me").renders)
