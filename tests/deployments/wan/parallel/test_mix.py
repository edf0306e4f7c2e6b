"""Which mix of guidance, Ulysses and ring the planner picks."""

import pytest

from deployments.wan.parallel.mix import best_mix
from serve_app.results import Parallelism

LARGE = 45_056  # tokens of 1024x1024x41


@pytest.mark.parametrize(
    ("ranks", "guided", "expected"),
    [
        (1, True, Parallelism()),
        (1, False, Parallelism()),
        (2, True, Parallelism(guidance=2)),
        (2, False, Parallelism(ulysses=2)),
        (4, True, Parallelism(guidance=2, ulysses=2)),
        (4, False, Parallelism(ulysses=4)),
        (8, True, Parallelism(guidance=2, ulysses=4)),
        (8, False, Parallelism(ulysses=8)),
        (5, True, Parallelism(ulysses=5)),
        (3, True, Parallelism(ring=3)),  # 3 divides neither the branches nor 40 heads
        (6, True, Parallelism(guidance=2, ring=3)),
        (6, False, Parallelism(ulysses=2, ring=3)),
    ],
)
def test_guidance_comes_first_then_ulysses_and_a_ring_where_heads_cannot_be_divided(
    ranks: int, guided: bool, expected: Parallelism
) -> None:
    mix = best_mix(ranks, heads=40, tokens=6 * LARGE, guided=guided)
    assert mix == expected
    assert mix.ranks == ranks


def test_ulysses_and_a_ring_share_evenly_or_not_both() -> None:
    assert best_mix(6, heads=40, tokens=LARGE, guided=False) == Parallelism(ring=6)


@pytest.mark.parametrize("heads", [4, 12, 24, 40])
@pytest.mark.parametrize("guided", [True, False])
def test_every_number_of_ranks_is_used_in_full(heads: int, guided: bool) -> None:
    for ranks in range(1, 17):
        for tokens in (LARGE, LARGE + 1, ranks):
            mix = best_mix(ranks, heads=heads, tokens=tokens, guided=guided)
            assert mix.ranks == ranks
            assert heads % mix.ulysses == 0
            assert mix.guidance == 1 or guided
            assert 1 in (mix.ulysses, mix.ring) or tokens % mix.sequence == 0


def test_a_video_with_fewer_tokens_than_ranks_is_refused() -> None:
    with pytest.raises(ValueError, match="7 tokens cannot be shared by 8 ranks"):
        best_mix(8, heads=40, tokens=7, guided=False)
