"""A start that is warm: files are read ahead, a small render comes first, and every part of it is timed."""

import logging
import threading
from pathlib import Path

import numpy as np
import pytest

from deployments.wan.demo.untrained import I2V, DemoCheckpoint, ensure_demo_checkpoint
from deployments.wan.runtime import WanRuntime
from deployments.wan.warm_start import read_ahead, warm_up_inputs, warm_up_spec, weight_files
from serve_app.models.card import load_card
from serve_app.spec import Speed
from tests.deployments.wan.conftest import frames_of, make_spec, options_for, options_of


def _wait_for_readers() -> None:
    for thread in threading.enumerate():
        if thread.name.startswith("read-ahead"):
            thread.join(timeout=30)
            assert not thread.is_alive()


def test_the_files_of_experts_text_encoder_and_vae_are_read_ahead(demo_checkpoint: DemoCheckpoint) -> None:
    files = list(weight_files(options_for(demo_checkpoint)))
    assert [file.parent.name for file in files] == ["transformer", "transformer_2", "text_encoder", "vae"]
    assert all(file.is_file() for file in files)
    read_ahead(files)
    _wait_for_readers()


def test_what_cannot_be_read_ahead_is_left_to_the_loading(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert list(weight_files(options_of(load_card("wan22_14b_t2v"), str(tmp_path), "nobody/has-this"))) == []
    assert list(weight_files(options_of(load_card("wan22_14b_t2v"), "/nowhere", "/nowhere"))) == []
    with caplog.at_level(logging.INFO, "ray.serve.wan"):
        read_ahead([tmp_path / "absent.safetensors"])
        _wait_for_readers()
    assert "absent.safetensors is not read ahead: No such file" in caplog.text


def test_a_warm_up_runs_every_expert_and_changes_no_later_frame(
    demo_checkpoint: DemoCheckpoint, runtime: WanRuntime
) -> None:
    warm = WanRuntime.load(options_for(demo_checkpoint, warm_up=Speed.FAST))
    assert warm.start.load > 0
    assert warm.start.warm_up > 0
    assert runtime.start.warm_up == 0
    spec = warm_up_spec(load_card("wan22_14b_t2v"), Speed.FAST, warm._sampler.passes)
    assert all(warm._sampler.passes(spec))
    np.testing.assert_array_equal(frames_of(warm, make_spec()), frames_of(runtime, make_spec()))


def test_a_model_that_starts_from_an_image_is_warmed_up_with_one(tmp_path: Path) -> None:
    checkpoint = ensure_demo_checkpoint(tmp_path / "demo", I2V)
    card = load_card("wan22_14b_i2v").of_checkpoint(str(checkpoint.transformers))
    options = options_of(card, str(checkpoint.base), str(checkpoint.transformers))
    warm = WanRuntime.load(options)
    assert warm_up_inputs(card, warm_up_spec(card, Speed.EXACT, warm._sampler.passes)).image is not None
    warm.warm_up(Speed.EXACT)
    assert warm.start.warm_up > 0
