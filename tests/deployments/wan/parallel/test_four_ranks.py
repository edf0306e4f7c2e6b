"""One video over four ranks on the CPU: the frames of one rank, whatever the mix, and one end for all."""

import signal
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
import torch.distributed as dist

from deployments.pipeline import RenderInputs
from deployments.wan.demo.untrained import DemoCheckpoint
from deployments.wan.parallel import team as team_module
from deployments.wan.parallel.team import Leader, TeamBroken
from deployments.wan.runtime import WanRuntime
from serve_app.results import Parallelism
from serve_app.spec import LoraFile, Recipe, RenderSpec, Speed
from tests.deployments.wan.conftest import difference, frames_of, make_spec, options_for, render_with

EVEN = {"width": 64, "height": 64, "num_frames": 5}  # 32 tokens
UNEVEN = {"width": 80, "height": 48, "num_frames": 9}  # 45
ROUNDING = 1  # of 255; parts of a sum are added in another order


@pytest.fixture(scope="module")
def ranks(demo_checkpoint: DemoCheckpoint) -> Iterator[WanRuntime]:
    """Yield four ranks. The last test of this file breaks them."""
    runtime = WanRuntime.load(options_for(demo_checkpoint, gpus=4))
    yield runtime
    runtime.close()


def team_of(runtime: WanRuntime) -> Leader:
    assert isinstance(runtime._team, Leader)
    return runtime._team


@pytest.mark.parametrize(
    "case",
    [
        (Parallelism(guidance=2, ulysses=2), EVEN),
        (Parallelism(guidance=2, ulysses=2), UNEVEN),
        (Parallelism(guidance=2, ring=2), EVEN),
        (Parallelism(guidance=2, ring=2), UNEVEN),
        (Parallelism(ulysses=4), EVEN),
        (Parallelism(ulysses=4), {**UNEVEN, "recipe": Recipe.PREVIEW}),
        (Parallelism(ring=4), UNEVEN),
        (Parallelism(ulysses=2, ring=2), EVEN),
    ],
)
def test_every_mix_gives_the_frames_of_one_rank(
    runtime: WanRuntime,
    ranks: WanRuntime,
    pair: tuple[LoraFile, LoraFile],
    case: tuple[Parallelism, dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mix, changes = case
    monkeypatch.setattr(team_of(ranks), "mix", lambda **_: mix)
    spec = make_spec(*pair, **changes)
    rendered = render_with(ranks, spec)
    one = render_with(runtime, spec)
    assert np.abs(rendered.frames.astype(int) - one.frames).max() <= ROUNDING
    assert difference(rendered.frames, one.frames) < 0.01
    assert rendered.made_with.acceleration.parallelism == mix
    assert rendered.made_with.loras == one.made_with.loras
    assert one.made_with.acceleration.parallelism == Parallelism()


def test_the_planner_chooses_by_guidance(ranks: WanRuntime) -> None:
    chosen = [
        render_with(ranks, make_spec(guidance_scale=scale)).made_with.acceleration.parallelism for scale in (4.0, 1.0)
    ]
    assert chosen == [Parallelism(guidance=2, ulysses=2), Parallelism(ulysses=4)]


def test_every_rank_goes_from_pair_to_pair_and_back_to_none(
    runtime: WanRuntime,
    ranks: WanRuntime,
    pair: tuple[LoraFile, LoraFile],
    other_pair: tuple[LoraFile, LoraFile],
) -> None:
    half = tuple(lora.model_copy(update={"multiplier": 0.5}) for lora in pair)
    bare = frames_of(runtime, make_spec())
    for loras, changes in (
        (pair, {}),  # as adapters
        (other_pair, {"recipe": Recipe.PREVIEW}),  # merged
        (half, {"speed": Speed.FAST}),
        ((), {}),
    ):
        spec = make_spec(*loras, **changes)
        frames = frames_of(ranks, spec)
        assert np.abs(frames.astype(int) - frames_of(runtime, spec)).max() <= ROUNDING
        assert (difference(frames, bare) > 0.1) == bool(loras)


def test_all_ranks_stop_at_the_step_at_which_the_render_is_canceled(runtime: WanRuntime, ranks: WanRuntime) -> None:
    steps = []

    def on_step(step: int) -> None:
        steps.append(step)
        if step == 2:
            raise InterruptedError("canceled")

    with pytest.raises(InterruptedError, match="canceled"):
        frames_of(ranks, make_spec(sample_steps=50), on_step)
    assert steps == [1, 2]
    difference_after = np.abs(frames_of(ranks, make_spec()).astype(int) - frames_of(runtime, make_spec())).max()
    assert difference_after <= ROUNDING
    ranks.probe()


class LostOnTheWay(dict[str, Any]):
    """Files that other processes do not get."""

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return dict, ()


def test_what_another_rank_meets_ends_the_render_and_not_the_ranks(
    ranks: WanRuntime, pair: tuple[LoraFile, LoraFile]
) -> None:
    spec = make_spec(*(lora.model_copy(update={"content": f"new {lora.expert}"}) for lora in pair))
    files = LostOnTheWay(dict.fromkeys(lora.content for lora in spec.loras))
    with pytest.raises((KeyError, AttributeError)):
        ranks.render(spec, RenderInputs(files), lambda _: None)
    assert ranks.lacking(spec) == spec.loras
    assert frames_of(ranks, make_spec()).any()


def test_a_rank_that_hangs_breaks_the_team(ranks: WanRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(team_module, "GRACE_S", 0.2)
    left: list[str] = []
    monkeypatch.setattr(team_module, "leave", lambda why, _: left.append(why))
    dist.distributed_c10d._set_pg_timeout(timedelta(seconds=2), None)
    spec: RenderSpec = make_spec()
    team_of(ranks)._members._members[1].process.send_signal(signal.SIGSTOP)
    with pytest.raises(TeamBroken, match="a rank hangs"):
        ranks.render(spec, RenderInputs({}), lambda _: None)
    with pytest.raises(TeamBroken):
        ranks.probe()
    assert left == []  # the Generator knows, gives the render back and leaves
