"""LoRAs as PEFT adapters: what diffusers itself makes of the same files."""

import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from serve_app.spec import Expert
from tests.deployments.wan.conftest import lora_file, make_spec
from tests.deployments.wan.experts import Experts, forward


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_adapters_are_those_of_diffusers(
    tiny_experts: Path, layouts: dict[str, Path], *, dtype: torch.dtype, several: bool
) -> None:
    names = ["ai-toolkit", "diffusers"] if several else ["ai-toolkit"]
    ours, theirs = Experts(tiny_experts, dtype), Experts(tiny_experts, dtype)
    ours.apply(make_spec(*(lora_file(Expert.LOW, layouts[name], 0.8) for name in names)))
    adapters = ["low_noise", "low_noise_2"][: len(names)]
    with warnings.catch_warnings(action="ignore"):  # at the second adapter
        for name, adapter in zip(names, adapters, strict=True):
            theirs.pipe.load_lora_weights(str(layouts[name]), adapter_name=adapter, load_into_transformer_2=True)
    theirs.pipe.transformer_2.set_adapters(adapters, weights=[0.8] * len(names))
    one, other = ours.adapters(Expert.LOW), theirs.adapters(Expert.LOW)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    # Not to the last bit in float32: on some CPUs (an AMD EPYC) a product of the same tensors depends by one unit in
    # the last place on where they lie in memory.
    rounding = 1e-5 if dtype is torch.float32 else 0.0
    torch.testing.assert_close(forward(ours, Expert.LOW), forward(theirs, Expert.LOW), rtol=0, atol=rounding)


def test_alpha_stays_a_factor_and_touches_no_weight(tiny_experts: Path, layouts: dict[str, Path]) -> None:
    experts = Experts(tiny_experts)
    for name in ("kohya-alpha", "mixed-ranks"):
        experts.apply(make_spec(lora_file(Expert.HIGH, layouts[name], 0.3)))
        tensors = {tuple(value.flatten().tolist()) for value in load_file(layouts[name]).values()}
        adapters = experts.adapters(Expert.HIGH)
        weights = [value for key, value in adapters.items() if key.endswith(".weight")]
        assert weights
        assert all(tuple(value.flatten().tolist()) in tensors for value in weights)
    scales = {round(float(value), 6) for key, value in adapters.items() if key.endswith("high_noise")}
    assert scales == {0.3}  # of the mixed ranks, every alpha is the rank itself, or absent
