"""Loading a model whose parts lie in checkpoints of their own."""

import shutil
from pathlib import Path

import numpy as np

from deployments.wan.demo.untrained import DemoCheckpoint
from deployments.wan.runtime import WanRuntime
from serve_app.models.card import Part, Parts, load_card
from tests.deployments.wan.conftest import frames_of, load_demo, make_spec, options_of


def test_parts_are_loaded_from_where_the_card_says(demo_checkpoint: DemoCheckpoint, tmp_path: Path) -> None:
    text = shutil.copytree(demo_checkpoint.base / "text_encoder", tmp_path / "text" / "text_encoder").parent
    shutil.copytree(demo_checkpoint.base / "tokenizer", text / "tokenizer")
    vae = shutil.copytree(demo_checkpoint.base / "vae", tmp_path / "vae")
    experts = str(demo_checkpoint.transformers)
    card = load_card("wan22_14b_t2v").model_copy(
        update={
            "base_model": experts,
            "ships_scheduler": False,
            "parts": Parts(
                text_encoder=Part(checkpoint=str(text), folder="text_encoder"),
                tokenizer=Part(checkpoint=str(text), folder="tokenizer"),
                vae=Part(checkpoint=str(vae)),
            ),
        }
    )
    runtime = WanRuntime.load(options_of(card, experts, experts))
    np.testing.assert_array_equal(frames_of(runtime, make_spec()), frames_of(load_demo(demo_checkpoint), make_spec()))


def test_a_base_model_of_the_args_is_whole(demo_checkpoint: DemoCheckpoint) -> None:
    card = load_card("wan22_14b_i2v").model_copy(update={"architecture": load_card("wan22_14b_t2v").architecture})
    options = options_of(card, str(demo_checkpoint.base), str(demo_checkpoint.transformers))
    assert WanRuntime.load(options).runtime.device == "cpu"  # nothing was fetched from the places of the card
