"""Bounded overtaking: when a render is overdue, and how far another one may reach."""

from hypothesis import given
from hypothesis import strategies as st

from deployments.scheduling import Overtaking
from tests.deployments.scheduling.situations import render

PATIENCE_S = 60.0
LINE = render(0).line

# Seconds between two starts, and the id of the second.
histories = st.lists(st.tuples(st.floats(0, 2 * PATIENCE_S), st.integers(1, 50)), min_size=1, max_size=60)


def played(history: list[tuple[float, int]]) -> tuple[Overtaking, list[tuple[float, int]]]:
    """Return the memory after these starts, and the starts with their times."""
    overtaking, now, starts = Overtaking(PATIENCE_S), 0.0, []
    for pause, number in history:
        now += pause
        overtaking.started(render(number), now)
        starts.append((now, number))
    return overtaking, starts


@given(histories, st.floats(0, 2 * PATIENCE_S))
def test_a_render_is_overdue_once_a_younger_one_started_a_patience_ago(
    history: list[tuple[float, int]], pause: float
) -> None:
    overtaking, starts = played(history)
    now = starts[-1][0] + pause
    overdue_before = overtaking.before(now)[LINE].overdue_before
    certain = max((number for at, number in starts if at <= now - PATIENCE_S), default=0)
    early = max((number for at, number in starts if at <= now - PATIENCE_S * 15 / 16), default=0)
    assert certain <= overdue_before <= early


@given(histories)
def test_a_render_that_went_back_into_the_queue_is_overdue_after_the_patience(
    history: list[tuple[float, int]],
) -> None:
    overtaking, starts = played([*history, (1.0, 99)])
    # A moment more: a sum of floats less one of its terms may come out below the other.
    assert overtaking.before(starts[-1][0] + PATIENCE_S + 1e-6)[LINE].overdue_before == 99


def test_the_reach_is_a_share_of_what_a_patience_starts_and_never_less_than_four() -> None:
    overtaking = Overtaking(PATIENCE_S)
    for number in range(400):
        overtaking.started(render(number), now=number * 0.1)
    assert overtaking.before(40.0)[LINE].reach == 60
    assert overtaking.before(40.0 + PATIENCE_S)[LINE].reach == 4


def test_what_is_remembered_of_a_line_does_not_grow_with_its_starts() -> None:
    overtaking = Overtaking(PATIENCE_S)
    for number in range(10_000):
        overtaking.started(render(number), now=number * 0.1)
    assert len(overtaking._lines[LINE]) <= 18


def test_a_line_that_starts_nothing_for_an_hour_is_forgotten() -> None:
    overtaking = Overtaking(PATIENCE_S)
    overtaking.started(render(1, tenant="gone"), now=0.0)
    overtaking.started(render(2), now=3601.0)
    assert list(overtaking.before(3601.0)) == [LINE]
