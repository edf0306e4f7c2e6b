"""What `build` refuses before anything is deployed."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import serve_app
from serve_app import application
from serve_app.errors import ConfigurationInvalid
from serve_app.models.card import load_card
from serve_app.settings import OffloadMode, Profile, Settings
from tests.lantern import CARD

if TYPE_CHECKING:
    from deployments.wan.demo.untrained import DemoCheckpoint


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ({"ofload": "none"}, "ofload"),
        ({"profile": "tpu"}, "profile"),
        ({"max_generators": "many"}, "max_generators"),
        ({"output_url": 7}, "output_url"),
        ({"gpus_per_generator": 3}, "gpus_per_generator"),
    ],
)
def test_a_wrong_arg_is_named(args: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigurationInvalid, match=f"serve_config.yaml: {named}"):
        serve_app.build(args)


def test_the_gpu_profile_needs_a_gpu() -> None:
    with pytest.raises(ConfigurationInvalid, match="profile: gpu"):
        application._profile(Settings(profile=Profile.GPU), gpus=0)


def test_gpu_nodes_may_come_with_the_work() -> None:
    assert application._profile(Settings(profile=Profile.GPU, max_generators=8), gpus=0) is Profile.GPU


@pytest.mark.parametrize(("gpus", "expected"), [(0, Profile.CPU), (1, Profile.GPU), (8, Profile.GPU)])
def test_auto_takes_the_gpu_where_there_is_one(gpus: int, expected: Profile) -> None:
    assert application._profile(Settings(profile=Profile.AUTO), gpus) is expected


def test_generators_are_counted_and_not_gpus() -> None:
    of_four = Settings(gpus_per_generator=4)
    assert [application._most_generators(of_four, Profile.GPU, gpus) for gpus in (4, 7, 8)] == [1, 1, 2]
    application._check_group(of_four, Profile.GPU, gpus=4)
    with pytest.raises(ConfigurationInvalid, match="gpus_per_generator: 4, and the Ray cluster has 2 GPUs now"):
        application._check_group(of_four, Profile.GPU, gpus=2)
    application._check_group(Settings(gpus_per_generator=4, max_generators=2), Profile.GPU, gpus=0)


def test_gpus_that_cannot_share_a_render_are_refused() -> None:
    for moving in (OffloadMode.MODEL, OffloadMode.SEQUENTIAL, OffloadMode.SWAP, OffloadMode.GROUPS):
        with pytest.raises(ConfigurationInvalid, match="use offload: auto, none or text"):
            application._check_group(Settings(gpus_per_generator=2, offload=moving), Profile.GPU, gpus=8)
    card = load_card("wan22_14b_t2v")
    odd = card.model_copy(update={"architecture": replace(card.architecture, num_attention_heads=12)})
    with pytest.raises(ConfigurationInvalid, match="8 does not divide the 12 attention heads"):
        application._divisible(odd, Settings(gpus_per_generator=8))
    assert application._divisible(card, Settings(gpus_per_generator=8)) is card


def test_the_architecture_comes_from_the_checkpoint_on_disk(demo_checkpoint: "DemoCheckpoint") -> None:
    card = load_card("wan22_14b_t2v").of_checkpoint(str(demo_checkpoint.transformers))
    assert card.architecture.num_layers == 2


def test_the_architecture_of_a_repository_comes_from_the_card() -> None:
    card = load_card("wan22_14b_t2v")
    assert card.of_checkpoint("ai-toolkit/Wan2.2-T2V-A14B-Diffusers-bf16") == card


def test_a_checkpoint_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationInvalid, match="transformer_model"):
        load_card("wan22_14b_t2v").of_checkpoint(str(tmp_path / "nothing"))


@pytest.mark.slow
def test_the_client_side_runs_without_the_model_stack() -> None:
    program = (
        "import sys, serve_app.api.app, serve_app.jobs.store, serve_app.loras.library, deployments.ingress;"
        "sys.exit(bool({'torch', 'diffusers', 'transformers', 'peft', 'accelerate'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_model_of_one_checkpoint_has_its_expert_there() -> None:
    card = load_card(str(CARD))
    assert application._checkpoint(card, Settings()) == ("lantern/base", "lantern/base")
    assert application._checkpoint(card, Settings(base_model="/mine")) == ("/mine", "/mine")
    assert application._checkpoint(load_card("wan22_14b_t2v"), Settings(base_model="/mine")) == (
        "/mine",
        "ai-toolkit/Wan2.2-T2V-A14B-Diffusers-bf16",
    )
