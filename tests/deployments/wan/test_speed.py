"""Speed profiles on the CPU: `fast` merges LoRAs and compiles blocks, and leaves nothing behind for `exact`."""

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from deployments.wan.demo.untrained import DemoCheckpoint
from deployments.wan.runtime import WanRuntime
from deployments.wan.speed import Accelerator, best_attention
from serve_app.results import Acceleration, Application, Attention
from serve_app.spec import LoraFile, Recipe, Speed
from tests.deployments.wan.conftest import Render, difference, load_demo, make_spec, render_with


@pytest.fixture(scope="module")
def traced(demo_checkpoint: DemoCheckpoint) -> WanRuntime:
    """Return a runtime whose fast renders are traced as for a compilation, but run by PyTorch's own operators."""
    runtime = load_demo(demo_checkpoint)
    pipe = runtime._pipe
    runtime._accelerator = Accelerator(
        [pipe.transformer, pipe.transformer_2], torch.device("cpu"), torch.float32, backend="eager"
    )
    return runtime


def test_a_fast_render_merges_its_loras_and_says_so(runtime: WanRuntime, pair: tuple[LoraFile, LoraFile]) -> None:
    exact = render_with(runtime, make_spec(*pair))
    fast = render_with(runtime, make_spec(*pair, speed=Speed.FAST))
    again = render_with(runtime, make_spec(*pair))
    assert {lora.application for lora in exact.made_with.loras} == {Application.ADAPTER}
    assert {lora.application for lora in fast.made_with.loras} == {Application.MERGED}
    assert fast.made_with.acceleration == Acceleration(speed=Speed.FAST, attention=Attention.NATIVE, compiled=False)
    assert exact.made_with.acceleration == Acceleration(speed=Speed.EXACT)
    np.testing.assert_array_equal(again.frames, exact.frames)
    assert difference(fast.frames, exact.frames) < 1  # of 255; merging rounds otherwise
    assert difference(fast.frames, render_with(runtime, make_spec(speed=Speed.FAST)).frames) > 0


def test_a_preview_is_merged_at_either_speed(runtime: WanRuntime, pair: tuple[LoraFile, LoraFile]) -> None:
    spec = make_spec(*pair, recipe=Recipe.PREVIEW)
    exact = render_with(runtime, spec)
    fast = render_with(runtime, spec.model_copy(update={"speed": Speed.FAST}))
    assert not runtime.lacking(spec)
    np.testing.assert_array_equal(fast.frames, exact.frames)  # on a CPU nothing else differs


def test_blocks_are_compiled_once_for_every_size_pair_and_scale(
    traced: WanRuntime, pair: tuple[LoraFile, LoraFile], other_pair: tuple[LoraFile, LoraFile], render: Render
) -> None:
    counters.clear()
    first = render_with(traced, make_spec(*pair, speed=Speed.FAST))
    assert first.made_with.acceleration.compiled
    graphs = counters["stats"]["unique_graphs"]
    assert graphs > 0
    high, low = pair
    for loras, changes in (
        (pair, {"width": 96, "height": 80}),
        (pair, {"num_frames": 9}),
        (other_pair, {}),
        ((high.model_copy(update={"multiplier": 0.5}), low), {}),
        ((), {}),
    ):
        render_with(traced, make_spec(*loras, **changes, speed=Speed.FAST))
    assert counters["stats"]["unique_graphs"] == graphs
    exact = render_with(traced, make_spec(*pair))
    assert not exact.made_with.acceleration.compiled
    assert counters["stats"]["unique_graphs"] == graphs
    np.testing.assert_array_equal(exact.frames, render(*pair))


def test_layers_with_offload_hooks_are_not_compiled(traced: WanRuntime) -> None:
    with traced._accelerator.running(Speed.FAST, hooked=True) as acceleration:
        assert not acceleration.compiled


def test_a_cpu_has_the_native_kernel_alone() -> None:
    assert best_attention(torch.device("cpu"), torch.bfloat16) is Attention.NATIVE
