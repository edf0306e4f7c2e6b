"""One video from an image over two ranks on the CPU, and what becomes of a rank whose process dies."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import pytest

from deployments.pipeline import PipelineOptions, RenderInputs
from deployments.wan.demo.untrained import TI2V, ensure_demo_checkpoint
from deployments.wan.parallel import team as team_module
from deployments.wan.parallel.team import Leader, TeamBroken
from deployments.wan.runtime import WanRuntime
from serve_app.errors import ConfigurationInvalid
from serve_app.models.card import load_card
from serve_app.results import Parallelism
from tests.deployments.wan.conftest import make_spec, options_of

SPEC = make_spec(model="wan22_5b", width=128, height=96, num_frames=9)  # 36 tokens, each with a timestep
IMAGE = RenderInputs({}, np.random.default_rng(1).integers(0, 256, (SPEC.height, SPEC.width, 3), np.uint8))


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> PipelineOptions:
    checkpoint = ensure_demo_checkpoint(tmp_path_factory.mktemp("ti2v"), TI2V)
    base, experts = str(checkpoint.base), str(checkpoint.transformers)
    return options_of(load_card("wan22_5b").of_checkpoint(experts), base, experts)


@pytest.fixture(scope="module")
def ranks(options: PipelineOptions) -> Iterator[WanRuntime]:
    """Yield two ranks. The last test of this file breaks them."""
    runtime = WanRuntime.load(replace(options, gpus=2))
    yield runtime
    runtime.close()


def test_guidance_side_by_side_is_exact_and_split_tokens_are_so_within_rounding(
    options: PipelineOptions, ranks: WanRuntime
) -> None:
    one = WanRuntime.load(options)
    for scale, mix, rounding in ((4.0, Parallelism(guidance=2), 0), (1.0, Parallelism(ulysses=2), 1)):
        spec = SPEC.model_copy(update={"guidance_scale": scale})
        rendered = ranks.render(spec, IMAGE, lambda _: None)
        frames = one.render(spec, IMAGE, lambda _: None).frames
        assert np.abs(rendered.frames.astype(int) - frames).max() <= rounding
        assert rendered.made_with.acceleration.parallelism == mix
        assert rendered.seconds.denoise > 0


def test_a_checkpoint_that_is_not_there_ends_the_start_of_all_ranks(options: PipelineOptions, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationInvalid, match="nothing"):
        WanRuntime.of_team(replace(options, base_model=str(tmp_path / "nothing")), team_module.Team())


def test_a_rank_that_dies_while_nothing_is_rendered_takes_all_down(
    ranks: WanRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(team_module, "GRACE_S", 0.2)
    left: SimpleQueue[str] = SimpleQueue()
    monkeypatch.setattr(team_module, "leave", lambda why, _: left.put(why))
    team = ranks._team
    assert isinstance(team, Leader)
    team._members._members[0].process.kill()
    assert "the process of rank 1 ended with status -9" in left.get(timeout=30)
    for use in (lambda: ranks.render(SPEC, IMAGE, lambda _: None), ranks.probe):
        with pytest.raises(TeamBroken, match="rank 1"):
            use()
