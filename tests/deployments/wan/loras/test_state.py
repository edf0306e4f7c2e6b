"""LoRA state of the experts: every switch is exact, whatever came before, and failures change nothing."""

import hashlib
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from deployments.wan.demo.untrained import DemoCheckpoint
from deployments.wan.loras.deltas import merge
from serve_app.errors import LoraNotLoaded
from serve_app.settings import OffloadMode, PristineMode
from serve_app.spec import PAIR, Expert, LoraFile, Recipe
from tests.deployments.wan.conftest import RECIPES, Render, difference, frames_of, load_demo, lora_file, make_spec
from tests.deployments.wan.experts import Experts, forward, same, same_state, scaled
from tests.deployments.wan.walks import next_spec

Pair = tuple[LoraFile, LoraFile]

_SOME_KEY = "diffusion_model.blocks.0.ffn.2.lora_{}.weight"


# Judged by frames


def test_switching_to_another_pair_and_back_gives_the_same_frames(
    render: Render, high: LoraFile, low: LoraFile, other_pair: Pair
) -> None:
    first, other = render(high, low), render(*other_pair)
    assert difference(first, other) > 5
    np.testing.assert_array_equal(render(high, low), first)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_missing_side_a_zero_multiplier_and_no_pair_equal_the_base(
    demo_checkpoint: DemoCheckpoint, render: Render, high: LoraFile, low: LoraFile, recipe: Recipe
) -> None:
    base = render(recipe=recipe)
    high_only = render(high, recipe=recipe)
    assert difference(high_only, base) > 1
    np.testing.assert_array_equal(render(high, scaled(low, 0), recipe=recipe), high_only)
    np.testing.assert_array_equal(render(scaled(high, 0), scaled(low, 0), recipe=recipe), base)
    # After all that, the base must be what a process that never saw a LoRA computes.
    untouched = load_demo(demo_checkpoint)
    np.testing.assert_array_equal(frames_of(untouched, make_spec(recipe=recipe)), base)
    np.testing.assert_array_equal(render(recipe=recipe), base)


def test_a_file_with_alpha_is_scaled_once_however_often_it_is_loaded(
    render: Render, high: LoraFile, tmp_path: Path
) -> None:
    expected = render(scaled(high, 0.5))
    tensors = load_file(high.location)
    tensors |= {key.replace("lora_A.weight", "alpha"): torch.tensor(8.0) for key in tensors if "lora_A" in key}
    save_file(tensors, tmp_path / "alpha.safetensors")
    with_alpha = lora_file(Expert.HIGH, tmp_path / "alpha.safetensors")
    for _ in range(2):
        np.testing.assert_array_equal(render(with_alpha), expected)  # half of rank 16, as a factor, not in the weights
        render()


def _without(key: str) -> Any:
    return lambda tensors: {name: value for name, value in tensors.items() if name != key}


def _renamed(old: str, new: str) -> Any:
    return lambda tensors: {name.replace(old, new): value for name, value in tensors.items()}


def _with(key: str, value: torch.Tensor) -> Any:
    return lambda tensors: {**tensors, key: value}


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (_renamed("diffusion_model.", "text_encoder."), "text_encoder.blocks.0.cross_attn.k.lora_A.weight"),
        (_renamed("blocks.1.", "blocks.9."), "blocks.9.cross_attn.k.lora_A.weight"),
        (_without(_SOME_KEY.format("B")), _SOME_KEY.format("B")),
        (_with("diffusion_model.blocks.0.norm9.diff", torch.zeros(96)), "diffusion_model.blocks.0.norm9.diff"),
        (_with(_SOME_KEY.format("A"), torch.zeros(16, 5)), _SOME_KEY.format("A")),
        (lambda _: {"unrelated": torch.zeros(1)}, "unrelated"),
        (lambda _: {}, None),
    ],
    ids=["other model", "too many blocks", "no up matrix", "unknown norm", "wrong shape", "no lora", "empty"],
)
@pytest.mark.parametrize("recipe", RECIPES)
def test_weights_that_are_not_taken_are_named_and_the_loaded_pair_stays(
    render: Render, pair: Pair, tmp_path: Path, *, change: Any, key: str | None, recipe: Recipe
) -> None:
    high, low = pair
    expected = render(*pair, recipe=recipe)
    save_file(change(load_file(low.location)), tmp_path / "odd.safetensors")
    with pytest.raises(LoraNotLoaded, match=r"odd\.safetensors") as caught:
        render(high, lora_file(Expert.LOW, tmp_path / "odd.safetensors"), recipe=recipe)
    if key is not None:
        assert any(named.endswith(key) for named in caught.value.details["keys"])
    np.testing.assert_array_equal(render(*pair, recipe=recipe), expected)


# Judged by weights


@pytest.mark.parametrize(
    ("dtype", "pristine", "switches"),
    [
        (torch.float32, PristineMode.HOST, 300),
        (torch.bfloat16, PristineMode.HOST, 400),
        (torch.bfloat16, PristineMode.CHECKPOINT, 300),
    ],
)
def test_a_thousand_switches_leave_no_trace(
    tiny_experts: Path,
    layouts: dict[str, Path],
    tmp_path: Path,
    *,
    dtype: torch.dtype,
    pristine: PristineMode,
    switches: int,
) -> None:
    choice = random.Random(switches)
    experts = Experts(tiny_experts, dtype, pristine=pristine)
    broken = tmp_path / "broken.safetensors"
    save_file({"unrelated": torch.zeros(1)}, broken)
    spec = make_spec()
    for count in range(switches):
        if count % 10 == 3:
            failing = spec.model_copy(update={"loras": (*spec.loras, lora_file(choice.choice(PAIR), broken))})
            with pytest.raises(LoraNotLoaded):
                experts.apply(failing)
        spec = next_spec(choice, layouts, spec)
        experts.apply(spec)
        if count % 20 == 0:
            fresh = Experts(tiny_experts, dtype)
            fresh.apply(spec)
            assert same_state(experts, fresh)
    experts.clear(spec)
    assert all(same(experts.weights(side), experts.loaded[side]) for side in PAIR)
    assert not any(experts.adapters(side) for side in PAIR)


@pytest.mark.parametrize("offload", [OffloadMode.MODEL, OffloadMode.SEQUENTIAL])
@pytest.mark.parametrize("pristine", [PristineMode.HOST, PristineMode.CHECKPOINT])
def test_switches_under_an_offload_plan_are_as_exact(
    tiny_experts: Path, layouts: dict[str, Path], offload: OffloadMode, pristine: PristineMode
) -> None:
    choice = random.Random(3)
    offloaded = Experts(tiny_experts, torch.bfloat16, offload=offload, pristine=pristine)
    plain = Experts(tiny_experts, torch.bfloat16)
    spec = make_spec()
    for _ in range(30):
        spec = next_spec(choice, layouts, spec)
        plain.apply(spec)
        offloaded.apply(spec)
        for side in PAIR:
            assert same(offloaded.waiting_weights(side), plain.weights(side))
            if offload is OffloadMode.MODEL:  # accelerate cannot run the other plan's hooks on a CPU
                assert torch.equal(forward(offloaded, side), forward(plain, side))


@pytest.mark.parametrize("pristine", [PristineMode.HOST, PristineMode.CHECKPOINT])
@pytest.mark.parametrize("merges_before", [0, 1, 25, 70])
def test_memory_that_runs_out_in_the_middle_leaves_the_base_and_the_next_switch_is_exact(
    tiny_experts: Path,
    layouts: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    pristine: PristineMode,
    merges_before: int,
) -> None:
    experts = Experts(tiny_experts, torch.bfloat16, pristine=pristine)
    first = make_spec(lora_file(Expert.HIGH, layouts["full-rank"]), recipe=Recipe.PREVIEW)
    wanted = make_spec(*(lora_file(side, layouts["extracted"]) for side in PAIR), recipe=Recipe.PREVIEW)
    experts.apply(first)
    done: list[None] = []

    def exhausted(*args: Any) -> torch.Tensor:
        done.append(None)
        if len(done) > merges_before:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return merge(*args)

    with monkeypatch.context() as patch:
        patch.setattr("deployments.wan.loras.weights.merge", exhausted)
        with pytest.raises(torch.OutOfMemoryError):
            experts.apply(wanted)
    assert experts.state.pair_key is None
    assert all(same(experts.weights(side), experts.loaded[side]) for side in PAIR)
    experts.apply(wanted)
    fresh = Experts(tiny_experts, torch.bfloat16)
    fresh.apply(wanted)
    assert same_state(experts, fresh)


def test_no_render_gets_weights_that_could_not_be_put_back(
    tiny_experts: Path, layouts: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    experts = Experts(tiny_experts, pristine=PristineMode.CHECKPOINT)
    merged = make_spec(lora_file(Expert.LOW, layouts["lokr"]))
    experts.apply(merged)
    with monkeypatch.context() as patch:
        patch.setattr("deployments.wan.loras.pristine.Pristine.get", _raise_os_error)
        for _ in range(2):
            with pytest.raises(OSError, match="gone"):
                experts.clear(merged)
    experts.clear(merged)
    assert same(experts.weights(Expert.LOW), experts.loaded[Expert.LOW])


def _raise_os_error(*_: Any) -> Any:
    raise OSError("gone")


def test_the_checkpoint_is_never_written_to(tiny_experts: Path, layouts: dict[str, Path]) -> None:
    def digest() -> list[str]:
        files = sorted(tiny_experts.rglob("*.safetensors"))
        return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]

    before = digest()
    for pristine in (PristineMode.HOST, PristineMode.CHECKPOINT):
        experts = Experts(tiny_experts, pristine=pristine)
        experts.apply(make_spec(*(lora_file(side, layouts["full-rank"]) for side in PAIR)))
    assert digest() == before


def test_parameters_that_no_lora_names_are_never_written(experts: Experts, layouts: dict[str, Path]) -> None:
    norm = experts.pipe.transformer.blocks[0].norm2
    pointer, version = norm.weight.data_ptr(), norm.weight._version
    experts.apply(make_spec(lora_file(Expert.HIGH, layouts["lokr"])))
    experts.clear(make_spec())
    assert (norm.weight.data_ptr(), norm.weight._version) == (pointer, version)
