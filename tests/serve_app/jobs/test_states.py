"""The state machine of a render, and the state of a request that follows (properties)."""

from hypothesis import given
from hypothesis import strategies as st

from serve_app.jobs.states import FINAL, RenderEvent, RenderState, after, request_state

renders = st.lists(st.sampled_from(RenderState), min_size=1, max_size=6)


@given(st.sampled_from(sorted(FINAL)), st.sampled_from(RenderEvent))
def test_nothing_happens_to_a_render_that_has_ended(state: RenderState, event: RenderEvent) -> None:
    assert after(state, event) is None


@given(st.sampled_from(RenderEvent))
def test_every_event_leads_to_one_state_from_somewhere(event: RenderEvent) -> None:
    assert len({state for source in RenderState if (state := after(source, event))}) == 1


def test_every_unfinished_render_can_reach_every_end() -> None:
    for start in set(RenderState) - FINAL:
        reached = {start}
        for _ in RenderState:
            reached |= {state for source in reached for event in RenderEvent if (state := after(source, event))}
        assert reached >= FINAL


@given(renders)
def test_a_request_has_ended_exactly_when_it_failed_or_all_its_renders_have(
    states: list[RenderState],
) -> None:
    ended = RenderState.FAILED in states or FINAL.issuperset(states)
    assert (request_state(states) in FINAL) is ended


@given(renders)
def test_a_request_succeeds_exactly_when_all_its_renders_do(states: list[RenderState]) -> None:
    assert (request_state(states) is RenderState.SUCCEEDED) is (set(states) == {RenderState.SUCCEEDED})


@given(renders)
def test_a_request_is_queued_only_while_nothing_was_started(states: list[RenderState]) -> None:
    if request_state(states) is RenderState.QUEUED:
        assert set(states) <= {RenderState.QUEUED, RenderState.CANCELED}
