"""How long a render waits, from what waits and runs."""

import pytest

from serve_app.jobs.load import Amount, Load, ahead_of, wait_s
from serve_app.jobs.records import Line
from serve_app.spec import Priority

LOW, NORMAL, HIGH = (Line("me", priority) for priority in Priority)
THEIRS, THEIRS_LOW = Line("they", Priority.NORMAL), Line("they", Priority.LOW)
OTHERS = Line("others", Priority.HIGH)


NOTHING = Amount()


def load(lines: dict[Line, Amount] | None = None, running: Amount = NOTHING, replicas: int = 0) -> Load:
    return Load(lines or {}, running, replicas)


def test_an_empty_load_has_nothing_and_room_for_one() -> None:
    empty = Load()
    assert (empty.queued, empty.of_tenant("me"), empty.capacity) == (Amount(), Amount(), 1)
    assert wait_s(empty, ahead_of(empty, NORMAL, Amount(), {})) == 0


@pytest.mark.parametrize(("replicas", "running", "capacity"), [(0, 0, 1), (4, 0, 4), (4, 3, 4), (4, 6, 6)])
def test_what_runs_has_a_replica_each(replicas: int, running: int, capacity: int) -> None:
    assert load(running=Amount(running, 1), replicas=replicas).capacity == capacity


def test_a_load_grows_by_what_joins_a_line() -> None:
    before = load({NORMAL: Amount(1, 10)}, Amount(2, 5), 3)
    after = before.plus(NORMAL, Amount(2, 4)).plus(THEIRS, Amount(1, 1))
    assert after == load({NORMAL: Amount(3, 14), THEIRS: Amount(1, 1)}, Amount(2, 5), 3)
    assert before.lines == {NORMAL: Amount(1, 10)}


def test_of_its_own_tenant_only_higher_priorities_are_ahead_of_a_render() -> None:
    lines = load({LOW: Amount(1, 10), NORMAL: Amount(9, 900), HIGH: Amount(2, 100)})
    assert ahead_of(lines, NORMAL, Amount(3, 30), {}) == Amount(5, 130)
    assert ahead_of(lines, HIGH, Amount(1, 50), {}) == Amount(1, 50)
    assert ahead_of(lines, LOW, Amount(), {}) == Amount(11, 1000)


def test_another_tenant_has_as_much_ahead_as_its_share_lets_through() -> None:
    lines = load({NORMAL: Amount(10, 100), THEIRS: Amount(50, 400), THEIRS_LOW: Amount(50, 600)})
    assert ahead_of(lines, NORMAL, Amount(2, 20), {}) == Amount(2 + 2, 40)
    assert ahead_of(lines, NORMAL, Amount(2, 20), {"they": 3.0}) == Amount(2 + 6, 80)
    assert ahead_of(lines, NORMAL, Amount(2, 20), {"me": 2.0}) == Amount(2 + 1, 30)
    assert ahead_of(lines, NORMAL, Amount(2, 20), {"they": 1000.0}) == Amount(2 + 100, 1020)


def test_a_tenant_with_little_waiting_has_no_more_than_that_ahead() -> None:
    lines = load({NORMAL: Amount(10, 100), THEIRS: Amount(1, 5), OTHERS: Amount(2, 7)})
    assert ahead_of(lines, NORMAL, Amount(9, 90), {}) == Amount(12, 102)


def test_who_is_first_of_its_tenant_has_nobody_ahead_however_much_waits() -> None:
    assert ahead_of(load({THEIRS: Amount(1000, 1e6)}), NORMAL, Amount(), {}) == Amount()


@pytest.mark.parametrize(
    ("running", "ahead", "replicas", "expected_s"),
    [
        (Amount(), Amount(4, 40), 2, 20),  # the work is shared
        (Amount(1, 10), Amount(), 2, 0),  # one is free
        (Amount(2, 10), Amount(), 2, 5),  # none is free
        (Amount(1, 10), Amount(2, 20), 2, 15),  # the free one goes to who is ahead
    ],
)
def test_a_render_waits_for_what_is_ahead_and_for_a_replica(
    running: Amount, ahead: Amount, replicas: int, expected_s: float
) -> None:
    assert wait_s(load(running=running, replicas=replicas), ahead) == expected_s
