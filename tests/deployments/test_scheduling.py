from hypothesis import given
from hypothesis import strategies as st

from deployments.scheduling import pick
from serve_app.jobs.records import Waiting

NOW = 1000.0

queues = st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, NOW)), min_size=1, max_size=20).map(
    lambda items: [
        Waiting(render_id=number, pair_key=pair, created_at=created)
        for number, (pair, created) in enumerate(sorted(items, key=lambda item: item[1]))
    ]
)
loaded_pairs = st.none() | st.sampled_from("abcd")


@given(queues, loaded_pairs)
def test_a_free_replica_always_gets_a_waiting_render(waiting: list[Waiting], loaded: str | None) -> None:
    assert pick(waiting, loaded=loaded, now=NOW, patience_s=60) in waiting


@given(queues, loaded_pairs)
def test_nobody_overtakes_a_render_that_lost_its_patience(waiting: list[Waiting], loaded: str | None) -> None:
    choice = pick(waiting, loaded=loaded, now=NOW, patience_s=60)
    if NOW - waiting[0].created_at >= 60:
        assert choice == waiting[0]


@given(queues, loaded_pairs)
def test_within_its_patience_the_line_yields_to_the_loaded_pair(waiting: list[Waiting], loaded: str | None) -> None:
    choice = pick(waiting, loaded=loaded, now=NOW, patience_s=2 * NOW)
    if any(render.pair_key == loaded for render in waiting):
        assert choice.pair_key == loaded
    else:
        assert choice == waiting[0]


@given(queues, loaded_pairs)
def test_among_renders_of_one_pair_the_oldest_comes_first(waiting: list[Waiting], loaded: str | None) -> None:
    choice = pick(waiting, loaded=loaded, now=NOW, patience_s=60)
    assert choice == next(render for render in waiting if render.pair_key == choice.pair_key)
