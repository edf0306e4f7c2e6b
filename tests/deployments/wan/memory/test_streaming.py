"""Experts that run from a few slots: the same numbers as from where they lie, and no copy too many."""

from collections.abc import Sequence
from itertools import chain, repeat

import pytest
import torch
from diffusers import WanTransformer3DModel

from deployments.wan.memory.streaming import ExpertStream

_BLOCKS = 5
_CPU = torch.device("cpu")


class CountedStream(ExpertStream):
    """Notes which blocks are copied."""

    copied: list[tuple[int, int]]

    def __init__(self, experts: Sequence[WanTransformer3DModel], slots: int) -> None:
        self.copied = []
        super().__init__(experts, _CPU, slots)

    def _fill(self, slot, place) -> None:  # type: ignore[no-untyped-def]  # of private types
        self.copied.append(place)
        super()._fill(slot, place)


def _expert(seed: int) -> WanTransformer3DModel:
    torch.manual_seed(seed)
    return WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        ffn_dim=48,
        text_dim=32,
        freq_dim=32,
        num_layers=_BLOCKS,
        in_channels=16,
        out_channels=16,
    ).eval()


@torch.no_grad()
def _forward(expert: WanTransformer3DModel, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    latents, text = torch.randn(1, 16, 2, 4, 4, generator=generator), torch.randn(1, 3, 32, generator=generator)
    made: torch.Tensor = expert(latents, torch.tensor([500.0]), text, return_dict=False)[0]
    return made


def _video(experts: Sequence[WanTransformer3DModel], passes: Sequence[int]) -> list[torch.Tensor]:
    order = chain.from_iterable(repeat(expert, count) for expert, count in zip(experts, passes, strict=True))
    return [_forward(expert, seed) for seed, expert in enumerate(order)]


@pytest.mark.parametrize("slots", range(1, _BLOCKS + 1))
@pytest.mark.parametrize(("expected", "real"), [((2, 3), (2, 3)), ((1, 1), (3, 0)), ((0, 0), (1, 2)), ((4, 2), (1, 1))])
def test_any_number_of_slots_gives_the_same_numbers_also_where_other_passes_were_expected(
    slots: int, expected: tuple[int, int], real: tuple[int, int]
) -> None:
    experts = [_expert(seed) for seed in range(2)]
    whole = _video(experts, real)
    weights = [[weight.data_ptr() for weight in expert.parameters()] for expert in experts]
    stream = ExpertStream(experts, _CPU, slots)
    stream.attach()
    for _ in range(2):
        stream.begin(expected)
        assert all(torch.equal(one, other) for one, other in zip(_video(experts, real), whole, strict=True))
    stream.release()
    assert [[weight.data_ptr() for weight in expert.parameters()] for expert in experts] == weights
    stream.detach()
    assert all(torch.equal(one, other) for one, other in zip(_video(experts, real), whole, strict=True))


def test_with_a_slot_for_each_block_experts_change_places_once_a_video() -> None:
    experts = [_expert(seed) for seed in range(2)]
    stream = CountedStream(experts, slots=_BLOCKS)
    stream.attach()
    blocks = range(_BLOCKS)
    stream.begin((2, 3))
    assert stream.copied == [(0, block) for block in blocks]
    stream.copied.clear()
    for expert, copied in ((0, []), (0, [(1, block) for block in blocks]), (1, []), (1, [])):
        _forward(experts[expert])
        assert stream.copied == copied
        stream.copied.clear()
    _forward(experts[1])
    assert stream.copied == [(0, block) for block in blocks]  # for the next video, which begins with this one
    stream.copied.clear()
    stream.begin((2, 3))
    assert stream.copied == []


def test_with_two_slots_each_pass_copies_each_block_once() -> None:
    experts = [_expert(seed) for seed in range(2)]
    stream = CountedStream(experts, slots=2)
    stream.attach()
    stream.begin((1, 1))
    _video(experts, (1, 1))
    assert stream.copied == [
        *((0, block) for block in range(_BLOCKS)),
        *((1, block) for block in range(_BLOCKS)),
        (0, 0),
        (0, 1),
    ]


def test_weights_that_change_while_released_are_the_ones_that_run() -> None:
    expert = _expert(0)
    stream = ExpertStream([expert], _CPU, slots=2)
    stream.attach()
    stream.begin((1,))
    before = _forward(expert)
    stream.release()
    with torch.no_grad():
        for weight in expert.parameters():
            weight.data.mul_(1.5)
    stream.attach()
    stream.begin((1,))
    after = _forward(expert)
    stream.detach()
    assert not torch.equal(before, after)
    assert torch.equal(after, _forward(expert))


def test_compiled_blocks_run_from_slots_and_are_not_compiled_again() -> None:
    experts = [_expert(seed) for seed in range(2)]
    whole = _video(experts, (2, 2))
    stream = ExpertStream(experts, _CPU, slots=2)
    stream.attach()
    for expert in experts:
        expert.compile_repeated_blocks(dynamic=True, backend="eager")
    stream.begin((2, 2))
    first = _video(experts, (2, 2))
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(first, whole, strict=True))
    stream.release()
    stream.attach()
    with torch.compiler.set_stance("fail_on_recompile"):
        stream.begin((2, 2))
        assert all(torch.equal(one, other) for one, other in zip(_video(experts, (2, 2)), first, strict=True))
