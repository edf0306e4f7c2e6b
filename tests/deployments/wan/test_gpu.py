"""The LoRA state on a GPU: the same weights as on a CPU, wherever they wait. Collected where there is a GPU."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from serve_app.settings import OffloadMode, PristineMode
from serve_app.spec import PAIR, Recipe
from tests.deployments.wan.conftest import lora_file, make_spec
from tests.deployments.wan.experts import Experts, forward, same
from tests.deployments.wan.walks import next_spec


def _experts(folder: Path, **options: Any) -> Experts:
    return Experts(folder, torch.bfloat16, device=torch.device("cuda"), **options)


@pytest.mark.parametrize("offload", [OffloadMode.NONE, OffloadMode.MODEL, OffloadMode.SEQUENTIAL])
@pytest.mark.parametrize("pristine", [PristineMode.GPU, PristineMode.HOST, PristineMode.CHECKPOINT])
def test_switches_are_exact_wherever_weights_wait(
    tiny_experts: Path, layouts: dict[str, Path], offload: OffloadMode, pristine: PristineMode
) -> None:
    choice = random.Random(1)
    experts = _experts(tiny_experts, offload=offload, pristine=pristine)
    spec = make_spec()
    for count in range(60):
        spec = next_spec(choice, layouts, spec)
        experts.apply(spec)
        if count % 6 == 0:
            fresh = _experts(tiny_experts)
            fresh.apply(spec)
            for side in PAIR:
                assert torch.equal(forward(experts, side), forward(fresh, side))
                assert same(experts.waiting_weights(side), fresh.weights(side))
    experts.clear(spec)
    assert all(same(experts.waiting_weights(side), experts.loaded[side]) for side in PAIR)


def test_memory_on_the_gpu_is_given_back_and_nothing_else_changes(tiny_experts: Path, layouts: dict[str, Path]) -> None:
    experts = _experts(tiny_experts, pristine=PristineMode.GPU)
    spec = make_spec(*(lora_file(side, layouts["extracted"]) for side in PAIR), recipe=Recipe.PREVIEW)
    experts.apply(spec)
    before = {side: experts.weights(side) for side in PAIR}
    assert experts.state.leave_gpu()
    assert experts.state.originals is PristineMode.HOST
    assert {lora.memory for lora in experts.state.resident.listing} == {"host"}
    assert not experts.state.leave_gpu()
    assert all(same(experts.weights(side), before[side]) for side in PAIR)
    experts.clear(spec)
    assert all(same(experts.weights(side), experts.loaded[side]) for side in PAIR)
