"""A LoRA whose values only the Generator sees, as those of a remote file: the result says if it does nothing."""

from pathlib import Path

import numpy as np

from deployments.wan.runtime import WanRuntime
from serve_app.spec import Expert
from tests.deployments.wan.conftest import lora_file, make_spec, render_with
from tests.serve_app.loras.files import save


def test_the_result_of_a_render_carries_the_warning(runtime: WanRuntime, tmp_path: Path) -> None:
    stem = "diffusion_model.blocks.0.norm3"
    idle = save(tmp_path / "idle.safetensors", {f"{stem}.diff": np.zeros(96, "f4")})
    acting = save(tmp_path / "acting.safetensors", {f"{stem}.diff": np.full(96, 0.1, "f4")})
    for path, warned in ((idle, True), (acting, False), (idle, True)):
        made_with = render_with(runtime, make_spec(lora_file(Expert.HIGH, path))).made_with
        assert ["all changes of this file are zero" in warning for warning in made_with.warnings] == [True] * warned
