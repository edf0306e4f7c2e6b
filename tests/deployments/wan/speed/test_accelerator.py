"""Speed profiles on the CPU: `fast` merges LoRAs and compiles blocks, and leaves nothing behind for `exact`."""

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from deployments.wan.demo.untrained import DemoCheckpoint
from deployments.wan.runtime import WanRuntime
from deployments.wan.speed.accelerator import Accelerator, warnings_of
from deployments.wan.speed.attention import best_attention
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


def test_blocks_are_compiled_once_forevery_size_pair_and_scale(
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
    with traced._accelerator.running(Speed.FAST, compilable=False) as running:
        assert not running.used.compiled


def test_a_cpu_has_the_native_kernel_alone() -> None:
    assert best_attention(torch.device("cpu"), torch.bfloat16) is Attention.NATIVE


def test_a_turbo_render_says_what_it_did_and_leaves_nothing_behind(
    runtime: WanRuntime, pair: tuple[LoraFile, LoraFile], other_pair: tuple[LoraFile, LoraFile]
) -> None:
    exact, fast = (render_with(runtime, make_spec(*pair, speed=speed)) for speed in (Speed.EXACT, Speed.FAST))
    turbo = render_with(runtime, make_spec(*pair, speed=Speed.TURBO))
    assert turbo.made_with.acceleration == Acceleration(speed=Speed.TURBO, float8=True)
    assert {lora.application for lora in turbo.made_with.loras} == {Application.MERGED}
    assert 0 < difference(turbo.frames, fast.frames) < 20  # of 255, with random weights
    other = render_with(runtime, make_spec(*other_pair, speed=Speed.TURBO))
    assert difference(other.frames, turbo.frames) > 1
    again = render_with(runtime, make_spec(*pair, speed=Speed.TURBO))
    np.testing.assert_array_equal(again.frames, turbo.frames)
    np.testing.assert_array_equal(render_with(runtime, make_spec(*pair)).frames, exact.frames)


def test_a_step_cache_skips_passes_and_the_result_counts_them(
    runtime: WanRuntime, pair: tuple[LoraFile, LoraFile]
) -> None:
    every = render_with(runtime, make_spec(*pair, speed=Speed.TURBO, sample_steps=6))
    cached = render_with(runtime, make_spec(*pair, speed=Speed.TURBO, sample_steps=6, step_cache=0.99))
    used = cached.made_with.acceleration
    assert used.step_cache == 0.99
    assert 0 < used.passes_reused <= 12 - 4  # the first pass of each expert and branch runs all blocks
    assert difference(cached.frames, every.frames) > 0
    none = render_with(runtime, make_spec(*pair, speed=Speed.TURBO, sample_steps=6, step_cache=1e-9))
    assert none.made_with.acceleration.passes_reused == 0
    np.testing.assert_array_equal(none.frames, every.frames)


def test_turbo_is_compiled_once_beside_fast(traced: WanRuntime, pair: tuple[LoraFile, LoraFile]) -> None:
    render_with(traced, make_spec(*pair, speed=Speed.FAST))
    render_with(traced, make_spec(*pair, speed=Speed.TURBO))
    graphs = counters["stats"]["unique_graphs"]
    for changes in ({"speed": Speed.FAST}, {"width": 96, "height": 80}, {"num_frames": 9}, {"step_cache": 0.5}):
        turbo = render_with(traced, make_spec(*pair, **{"speed": Speed.TURBO, **changes}))
        assert turbo.made_with.acceleration.compiled
    assert counters["stats"]["unique_graphs"] == graphs


def test_turbo_with_weights_that_come_in_pieces_runs_without_fp8_and_says_so(traced: WanRuntime) -> None:
    with traced._accelerator.running(Speed.TURBO, in_place=False) as running:
        assert not running.used.float8
    assert "without FP8" in warnings_of(running.used)[0]
