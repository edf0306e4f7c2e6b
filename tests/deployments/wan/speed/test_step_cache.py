"""The step cache: which passes reuse what the ones before did, and that nothing crosses the swap of experts."""

from collections.abc import Sequence

import pytest
import torch

from deployments.wan.speed.step_cache import StepCache

PROMPT, NEGATIVE = torch.zeros(1), torch.ones(1)
THRESHOLD = 0.1


class Adding(torch.nn.Module):
    """A block that adds a share of what it gets, and counts."""

    def __init__(self) -> None:
        super().__init__()
        self.runs = 0

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        self.runs += 1
        return hidden + 0.1 * hidden


class Blocks(torch.nn.Module):
    """An expert of three blocks, called as the pipeline calls one."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = torch.nn.ModuleList(Adding() for _ in range(3))

    def forward(self, hidden: torch.Tensor, *, encoder_hidden_states: torch.Tensor) -> torch.Tensor:
        del encoder_hidden_states
        for block in self.blocks:
            hidden = block(hidden)
        return hidden

    @property
    def runs(self) -> list[int]:
        return [block.runs for block in self.blocks]  # type: ignore[misc]


def passes(expert: Blocks, *inputs: tuple[float, torch.Tensor]) -> list[float]:
    return [expert(torch.full((1, 4), value), encoder_hidden_states=text).mean().item() for value, text in inputs]


def test_a_pass_that_changes_little_runs_the_first_block_alone() -> None:
    expert = Blocks()
    cache = StepCache([expert], THRESHOLD)
    with cache.in_place():
        made = passes(expert, (1.0, PROMPT), (1.05, PROMPT), (1.5, PROMPT))
    assert expert.runs == [3, 2, 2]
    assert cache.reused == 1
    assert made[0] == pytest.approx(1.331)
    assert made[1] == pytest.approx(1.05 * 1.1 + (1.331 - 1.1))  # its own first block, the others' sum of before
    assert made[2] == pytest.approx(1.5 * 1.331)


def test_small_changes_add_up_until_the_blocks_run_again() -> None:
    expert = Blocks()
    cache = StepCache([expert], THRESHOLD)
    with cache.in_place():
        passes(expert, *((1 + 0.04 * step, PROMPT) for step in range(4)))
    assert cache.reused == 2  # 4 and 8 % away from the pass that ran; 12 % is too far


def test_each_branch_of_guidance_has_its_own() -> None:
    expert = Blocks()
    cache = StepCache([expert], THRESHOLD)
    with cache.in_place():
        made = passes(expert, (1.0, PROMPT), (9.0, NEGATIVE), (1.0, PROMPT), (9.0, NEGATIVE))
    assert cache.reused == 2
    assert made[2:] == pytest.approx(made[:2])


def test_nothing_crosses_the_swap_of_experts_nor_the_end_of_a_render() -> None:
    experts: Sequence[Blocks] = (Blocks(), Blocks())
    cache = StepCache(experts, THRESHOLD)
    with cache.in_place():
        for expert in experts:
            passes(expert, (1.0, PROMPT))
    assert cache.reused == 0
    with StepCache(experts, THRESHOLD).in_place():
        passes(experts[0], (1.0, PROMPT))
    assert [expert.runs for expert in experts] == [[2, 2, 2], [1, 1, 1]]


def test_afterwards_the_expert_is_what_it_was() -> None:
    expert = Blocks()
    blocks = expert.blocks
    with pytest.raises(RuntimeError), StepCache([expert], THRESHOLD).in_place():
        raise RuntimeError
    assert expert.blocks is blocks
    assert not expert._forward_pre_hooks


def test_another_size_in_the_same_render_runs_all_blocks() -> None:
    expert = Blocks()
    cache = StepCache([expert], THRESHOLD)
    with cache.in_place():
        passes(expert, (1.0, PROMPT))
        expert(torch.ones(1, 8), encoder_hidden_states=PROMPT)
    assert cache.reused == 0
