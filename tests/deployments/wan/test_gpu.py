"""The LoRA state on a GPU: the same weights as on a CPU, wherever they wait. Collected if there is a GPU."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deployments.pipeline import RenderInputs
from deployments.wan.demo.untrained import I2V, TI2V, DemoCheckpoint, ensure_demo_checkpoint
from deployments.wan.runtime import WanRuntime
from serve_app.models.card import load_card
from serve_app.settings import OffloadMode, PristineMode
from serve_app.spec import PAIR, Recipe, Sampler, Speed
from tests.deployments.wan.conftest import (
    RECIPES,
    difference,
    frames_of,
    lora_file,
    make_spec,
    options_for,
    options_of,
    render_with,
)
from tests.deployments.wan.experts import Experts, forward, same
from tests.deployments.wan.walks import next_spec


def _experts(folder: Path, **options: Any) -> Experts:
    return Experts(folder, torch.bfloat16, device=torch.device("cuda"), **options)


_MODES = [mode for mode in OffloadMode if mode is not OffloadMode.AUTO]


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


def test_every_offload_plan_gives_the_same_frames(demo_checkpoint: DemoCheckpoint) -> None:
    prompts = ("a fox runs through fresh snow", "a red kite over the sea")
    frames = {}
    for offload in _MODES:
        runtime = WanRuntime.load(options_for(demo_checkpoint, device="cuda", dtype="float32", offload=offload))
        frames[offload] = [frames_of(runtime, make_spec(prompt=prompt)) for prompt in prompts]
        text_encoder_waits = next(runtime._pipe.text_encoder.parameters()).device.type != "cuda"
        assert text_encoder_waits == (offload is not OffloadMode.NONE)
    for other in frames.values():
        np.testing.assert_array_equal(other, frames[OffloadMode.NONE])


def test_a_fast_render_is_compiled_and_exact_ones_stay_exact(demo_checkpoint: DemoCheckpoint) -> None:
    runtime = WanRuntime.load(options_for(demo_checkpoint, device="cuda", dtype="bfloat16"))
    exact = frames_of(runtime, make_spec())
    fast = render_with(runtime, make_spec(speed=Speed.FAST))
    assert fast.made_with.acceleration.compiled
    assert 0 < difference(fast.frames, exact) < 10
    np.testing.assert_array_equal(frames_of(runtime, make_spec()), exact)


@pytest.mark.parametrize("model", ["wan22_14b_i2v", "wan22_5b"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_images_condition_a_video_alike_under_every_offload_plan(tmp_path: Path, model: str, recipe: Recipe) -> None:
    checkpoint = ensure_demo_checkpoint(tmp_path / "demo", {"wan22_14b_i2v": I2V, "wan22_5b": TI2V}[model])
    base, experts = str(checkpoint.base), str(checkpoint.transformers)
    card = load_card(model).of_checkpoint(experts)
    spec = make_spec(model=model, recipe=recipe, sampler=Sampler.EULER if recipe is Recipe.PREVIEW else Sampler.UNIPC)
    inputs = RenderInputs({}, np.random.default_rng(1).integers(0, 256, (spec.height, spec.width, 3), np.uint8))
    frames = {}
    for offload in _MODES:
        options = replace(options_of(card, base, experts), device="cuda", dtype="float32", offload=offload)
        runtime = WanRuntime.load(options)
        frames[offload] = runtime.render(spec, inputs, lambda _: None).frames
        np.testing.assert_array_equal(runtime.render(spec, inputs, lambda _: None).frames, frames[offload])
    for other in frames.values():
        np.testing.assert_array_equal(other, frames[OffloadMode.NONE])
    runtime = WanRuntime.load(replace(options_of(card, base, experts), device="cuda", dtype="float32"))
    fast = runtime.render(spec.model_copy(update={"speed": Speed.FAST}), inputs, lambda _: None)
    assert fast.made_with.acceleration.compiled
    assert difference(fast.frames, frames[OffloadMode.NONE]) < 3
