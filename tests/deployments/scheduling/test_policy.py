"""The laws of the scheduling policy, on any queue, replica and fleet (properties)."""

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from deployments.scheduling import WINDOW, Fleet, Passing, Replica, Rules, pick, rank
from deployments.scheduling.overtaking import NOTHING_STARTED
from serve_app.spec import Priority
from tests.deployments.scheduling.situations import NOW, PAIRS, TENANTS, Situation, render, situations


@given(situations)
def test_a_free_replica_always_gets_a_waiting_render(situation: Situation) -> None:
    assert situation.choice in situation.waiting


@given(situations)
def test_no_tenant_is_preferred_beyond_the_slack(situation: Situation) -> None:
    turns = situation.fleet.turns
    assert turns[situation.choice.tenant] <= turns[situation.owed] + situation.fleet.slack


@given(situations)
def test_without_slack_the_most_owed_tenant_comes_first_whatever_others_ask_for(situation: Situation) -> None:
    turns = {tenant: number + turn / 100 for number, (tenant, turn) in enumerate(situation.fleet.turns.items())}
    strict = replace(situation, fleet=replace(situation.fleet, turns=turns, slack=0.0))
    assert strict.choice.tenant == strict.owed


@given(situations, st.data())
def test_what_a_tenant_is_called_decides_nothing(situation: Situation, data: st.DataObject) -> None:
    names = dict(zip(TENANTS, data.draw(st.permutations(TENANTS)), strict=True))
    fleet = replace(
        situation.fleet,
        turns={names[tenant]: turn for tenant, turn in situation.fleet.turns.items()},
        overtaken={line._replace(tenant=names[line.tenant]): p for line, p in situation.fleet.overtaken.items()},
    )
    waiting = [render._replace(tenant=names[render.tenant]) for render in situation.waiting]
    renamed = replace(situation, fleet=fleet, waiting=waiting)
    assert renamed.choice.render_id == situation.choice.render_id


@given(situations)
def test_a_higher_priority_comes_first_within_its_tenant_until_the_age_bound(situation: Situation) -> None:
    choice = situation.choice
    own = situation.of_tenant(choice.tenant)
    if any(map(situation.aged, own)):
        assert situation.aged(choice)
    else:
        assert choice.priority.rank == max(render.priority.rank for render in own)


@given(situations)
def test_beyond_the_age_bound_a_render_yields_only_to_its_own_line_and_to_older_ones(situation: Situation) -> None:
    choice = situation.choice
    aged = [render for render in situation.of_tenant(choice.tenant) if situation.aged(render)]
    assume(aged)
    assert choice.line == aged[0].line


@given(situations)
def test_nobody_passes_an_overdue_render_of_its_line(situation: Situation) -> None:
    assert not any(map(situation.overdue, situation.older_in_line(situation.choice)))


@given(situations)
def test_what_the_most_owed_tenant_has_overdue_goes_before_every_warm_pair(situation: Situation) -> None:
    strict = replace(situation, rules=replace(situation.rules, age_bound_s=2 * NOW))
    own = strict.of_tenant(strict.owed)
    highest = max(render.priority.rank for render in own)
    oldest = next(render for render in own if render.priority.rank == highest)
    assume(strict.overdue(oldest))
    assert strict.choice == oldest


@given(situations)
def test_without_patience_every_line_keeps_its_order(situation: Situation) -> None:
    strict = replace(situation, rules=replace(situation.rules, patience_s=0.0))
    own = [render for render in strict.waiting if render.line == strict.choice.line]
    assert strict.choice == own[0]


@given(situations)
def test_nobody_passes_more_renders_than_the_reach(situation: Situation) -> None:
    passing = situation.fleet.overtaken.get(situation.choice.line, NOTHING_STARTED)
    assert len(situation.older_in_line(situation.choice)) <= passing.reach


@given(situations)
def test_among_renders_of_one_line_and_pair_the_oldest_comes_first(situation: Situation) -> None:
    choice = situation.choice
    assert choice.pair_key not in {render.pair_key for render in situation.older_in_line(choice)}


@given(situations)
def test_a_replica_loads_nothing_while_the_most_owed_tenants_oldest_suits_it(situation: Situation) -> None:
    oldest = replace(situation, replica=Replica("r", ()), rules=replace(situation.rules, patience_s=0.0)).choice
    assume(oldest.tenant == situation.owed and not situation.overdue(oldest))
    suited = replace(situation, replica=Replica("r", (oldest.pair_key,)))
    assert suited.choice.pair_key == oldest.pair_key


def chosen(pairs: str, *, resident: str = "", elsewhere: str = "", reach: int = 10) -> int:
    """Return the place of the choice in one line that waits for these pairs."""
    waiting = [render(number, pair=pair) for number, pair in enumerate(pairs)]
    fleet = Fleet(frozenset(elsewhere), {"x": 0.0}, {waiting[0].line: Passing(0, reach)}, slack=0.0)
    return pick(waiting, Replica("r", tuple(resident)), fleet, NOW, Rules(60, 900)).render_id


@pytest.mark.parametrize(
    ("resident", "elsewhere", "place"),
    [
        ("bc", "abc", 1),  # warm here
        ("bc", "ab", 2),  # before others, what is warm only here
        ("", "ab", 2),  # what is warm nowhere
        ("", "abc", 0),  # the oldest
    ],
)
def test_a_pair_that_others_have_is_left_to_them(resident: str, elsewhere: str, place: int) -> None:
    assert chosen("abc", resident=resident, elsewhere=elsewhere) == place


def test_behind_the_window_ids_tell_how_far_a_render_lies() -> None:
    """Every third id is of this line; of what lies behind the window, the store gives only what suits the replica."""
    line = [render(3 * place) for place in range(WINDOW)]
    suits = render(3 * 100, pair="b")
    for reach, choice in ((99, line[0]), (100, suits)):
        fleet = Fleet(frozenset("a"), {"x": 0.0}, {suits.line: Passing(0, reach)}, slack=0.0)
        assert pick([*line, suits], Replica("r", ("b",)), fleet, NOW, Rules(60, 900)) == choice


def test_a_tenant_with_everything_high_takes_nothing_from_another() -> None:
    greedy = render(0, tenant="y", priority=Priority.HIGH)
    modest = render(1, tenant="x", priority=Priority.LOW, pair="b")
    fleet = Fleet(frozenset(), {"x": 0.0, "y": 1.0}, {}, slack=0.5)
    assert pick([greedy, modest], Replica("r", ("a",)), fleet, NOW, Rules(60, 900)) == modest


@given(st.frozensets(st.sampled_from(PAIRS)), st.frozensets(st.sampled_from(PAIRS)))
def test_of_free_replicas_a_warm_one_comes_first_and_then_an_empty_one(
    resident: frozenset[str], wanted: frozenset[str]
) -> None:
    assert rank(resident, wanted) == (0 if resident & wanted else 2 if resident else 1)
