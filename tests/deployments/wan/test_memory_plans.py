"""Every memory plan on the tiny model, through the code that a GPU runs: the same frames, down, and up again.

A CPU computes here, and a GPU's free memory is what the test says: so weights are copied, hooked and put back as beside
a GPU, only on one device. What runs out of memory is a module of the model, which raises what CUDA raises.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import deployments.wan.runtime as runtime_module
from deployments.pipeline import Frames, RenderInputs
from deployments.wan.demo.untrained import DemoCheckpoint
from deployments.wan.memory.chooser import PATIENCE
from deployments.wan.memory.planner import FreeMemory
from deployments.wan.runtime import WanRuntime
from serve_app.errors import LoraChanged, OutOfMemory
from serve_app.needs import NeedKey
from serve_app.settings import OffloadMode, PristineMode
from serve_app.spec import Expert, LoraFile, Recipe, Sampler, Speed
from tests.deployments.wan.conftest import frames_of, lora_file, make_spec, options_for, render_with
from tests.deployments.wan.held import held

_GIB = 2**30
_PLENTY = 200 * _GIB

Beside = Callable[..., WanRuntime]


@pytest.fixture
def beside(demo_checkpoint: DemoCheckpoint, monkeypatch: pytest.MonkeyPatch) -> Beside:
    """Return a loader of runtimes on the CPU that plan for a GPU with so much free memory."""

    def load(gpu: int = _PLENTY, **options: Any) -> WanRuntime:
        monkeypatch.setattr(runtime_module, "free_memory", lambda _: FreeMemory(gpu, _PLENTY))
        return WanRuntime.load(options_for(demo_checkpoint, **options))

    return load


class RunsOut:
    """A block of the last expert that runs out of memory as often as it is told to, at its second call each time."""

    def __init__(self, runtime: WanRuntime) -> None:
        self.times = 0
        self.calls = 0
        runtime._pipe.transformer_2.blocks[-1].register_forward_pre_hook(self._before)

    def _before(self, *_: Any) -> None:
        self.calls += 1
        if self.times and self.calls % 2 == 0:
            self.times -= 1
            raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.fixture
def expected(runtime: WanRuntime, pair: tuple[LoraFile, LoraFile]) -> Frames:
    """Return the frames of the pair with everything in its place."""
    return frames_of(runtime, make_spec(*pair))


_MODES = [mode for mode in OffloadMode if mode not in (OffloadMode.AUTO, OffloadMode.NONE)]


@pytest.mark.parametrize("mode", _MODES)
def test_every_plan_gives_the_frames_of_everything_in_its_place(
    mode: OffloadMode,
    beside: Beside,
    runtime: WanRuntime,
    pair: tuple[LoraFile, LoraFile],
    other_pair: tuple[LoraFile, LoraFile],
) -> None:
    planned = beside(offload=mode)
    assert planned.runtime.offload == mode.value
    specs = [
        make_spec(*pair),
        make_spec(*pair, prompt="a red kite over the sea", width=96),
        make_spec(*other_pair, guidance_scale=1.0, sample_steps=3),  # other LoRAs, another number of passes
        make_spec(*pair, recipe=Recipe.PREVIEW, sampler=Sampler.EULER),  # merged
        make_spec(sample_steps=1),
        make_spec(*pair),
    ]
    for spec in specs:
        np.testing.assert_array_equal(frames_of(planned, spec), frames_of(runtime, spec))


@pytest.mark.parametrize("mode", _MODES)
def test_a_render_that_was_stopped_leaves_every_plan_ready_for_the_next(
    mode: OffloadMode, beside: Beside, expected: Frames, pair: tuple[LoraFile, LoraFile]
) -> None:
    class StoppedError(Exception):
        pass

    def stop(step: int) -> None:
        if step == 2:
            raise StoppedError

    planned = beside(offload=mode)
    with pytest.raises(StoppedError):
        frames_of(planned, make_spec(*pair), stop)
    np.testing.assert_array_equal(frames_of(planned, make_spec(*pair)), expected)


def test_a_render_that_runs_out_of_memory_is_tried_once_more_on_the_next_plan(
    beside: Beside, expected: Frames, pair: tuple[LoraFile, LoraFile], caplog: pytest.LogCaptureFixture
) -> None:
    planned = beside(pristine=PristineMode.HOST)
    planned._loras.resident.use_gpu(0)
    assert planned.runtime.offload == "none"
    runs_out, steps = RunsOut(planned), list[int]()
    runs_out.times = 1
    rendered = render_with(planned, make_spec(*pair), steps.append)
    np.testing.assert_array_equal(rendered.frames, expected)
    assert steps[-4:] == [1, 2, 3, 4]
    assert len(steps) > 4
    told = rendered.made_with.runtime
    assert told.offload == "text"
    assert told.offload_reason.startswith("out of memory with none (all weights fit")
    assert "cpu ran out of memory for 64x64, 5 frames" in caplog.text
    assert "goes from offload: none to offload: text" in caplog.text


def test_it_goes_down_plan_by_plan_and_says_what_would_fit(beside: Beside, pair: tuple[LoraFile, LoraFile]) -> None:
    planned = beside(pristine=PristineMode.HOST)
    runs_out = RunsOut(planned)
    large = make_spec(*pair, width=128, height=96)
    for modes in ("none, then text", "swap, then groups", "sequential"):
        runs_out.times = 2
        with pytest.raises(OutOfMemory, match=f"128x96, 5 frames with offload: {modes}; ask for fewer") as caught:
            frames_of(planned, large)
    assert "96x64 with 5 frames should fit" in str(caught.value)
    assert caught.value.details["largest_that_fits"] == {"width": 96, "height": 64, "num_frames": 5}


def test_smaller_renders_bring_the_faster_plan_back_and_the_large_one_stays_on_its_own(
    beside: Beside, runtime: WanRuntime, pair: tuple[LoraFile, LoraFile]
) -> None:
    planned = beside(pristine=PristineMode.HOST)
    runs_out = RunsOut(planned)
    large, small = make_spec(*pair, width=128), make_spec(*pair)
    runs_out.times = 1
    frames_of(planned, large)
    modes = []
    for spec in (small,) * PATIENCE + (large, large):
        rendered = render_with(planned, spec)
        np.testing.assert_array_equal(rendered.frames, frames_of(runtime, spec))
        modes.append(rendered.made_with.runtime.offload)
    assert modes == ["text"] * (PATIENCE - 1) + ["none", "text", "text"]
    assert runs_out.times == 0


def test_copies_on_the_gpu_go_before_the_plan_does_and_come_back_with_smaller_renders(
    beside: Beside, runtime: WanRuntime, pair: tuple[LoraFile, LoraFile], caplog: pytest.LogCaptureFixture
) -> None:
    planned = beside()
    originals = [planned.runtime.pristine]
    merged = {"recipe": Recipe.PREVIEW, "sampler": Sampler.EULER}
    large, small = make_spec(*pair, width=128, **merged), make_spec(*pair, **merged)
    runs_out = RunsOut(planned)
    runs_out.times = 1
    # A CPU keeps nothing on a GPU, so what it would give up there is given up here: nothing but the plan.
    planned._loras.leave_gpu, leave = _left(planned), planned._loras.leave_gpu  # type: ignore[method-assign]
    np.testing.assert_array_equal(frames_of(planned, large), frames_of(runtime, large))
    planned._loras.leave_gpu = leave  # type: ignore[method-assign]
    originals.append(planned.runtime.pristine)
    for _ in range(PATIENCE):
        np.testing.assert_array_equal(frames_of(planned, small), frames_of(runtime, small))
        originals.append(planned.runtime.pristine)
    assert originals == ["gpu", *["host"] * PATIENCE, "gpu"]
    assert planned.runtime.offload == "none"
    assert "it keeps no copies for switching LoRAs at this size" in caplog.text


def _left(planned: WanRuntime) -> Callable[[], bool]:
    leave = planned._loras.leave_gpu
    return lambda: leave() or True


def test_measured_peaks_change_the_plan(beside: Beside) -> None:
    planned = beside(20 * _GIB)
    assert render_with(planned, make_spec()).made_with.runtime.offload == "none"
    spec = make_spec(width=128)
    frames = frames_of(planned, spec)
    needs = {NeedKey.of(spec): 19 * _GIB}
    rendered = planned.render(spec, RenderInputs({}, needs=needs), lambda _: None)
    assert rendered.made_with.runtime.offload == "sequential"
    np.testing.assert_array_equal(rendered.frames, frames)


def test_what_is_predicted_follows_the_size_and_the_copies_of_turbo(beside: Beside) -> None:
    planned = beside(speeds=tuple(Speed))
    specs = [make_spec(speed=Speed.FAST), make_spec(speed=Speed.FAST, width=128), make_spec(speed=Speed.TURBO)]
    small, large, turbo = (render_with(planned, spec).made_with.runtime.predicted_bytes or 0 for spec in specs)
    assert 0 < small < large
    assert turbo - small == planned._accelerator.copies_bytes(Speed.TURBO) > 0


def test_a_failed_load_on_a_leaner_plan_puts_that_plan_back(
    beside: Beside, runtime: WanRuntime, high: LoraFile, tmp_path: Path
) -> None:
    planned = beside(offload=OffloadMode.SWAP)
    path = tmp_path / "mine.safetensors"
    path.write_bytes(Path(high.location).read_bytes())
    spec = make_spec(lora_file(Expert.HIGH, path))
    with held(planned.lacking(spec), planned._pipe.transformer.config, strict=True) as files:
        path.unlink()
        with pytest.raises(LoraChanged):
            planned.render(spec, RenderInputs(files), lambda _: None)
    assert planned.runtime.offload == "swap"
    np.testing.assert_array_equal(frames_of(planned, make_spec()), frames_of(runtime, make_spec()))


def test_ranks_follow_the_plan_that_another_has_chosen(beside: Beside, expected: Frames, pair: Any) -> None:
    planned = beside()
    plan = replace(planned.memory.plan, offload=OffloadMode.TEXT, reason="rank 0 says so")
    planned.memory.change_plan(plan)
    assert planned.runtime.offload_reason == "rank 0 says so"
    np.testing.assert_array_equal(frames_of(planned, make_spec(*pair)), expected)
