"""The demos of Wan 2.2 I2V A14B and TI2V 5B: built by the cards, labelled, and moved by image, prompt and LoRA."""

import json
from pathlib import Path
from pkgutil import resolve_name
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from safetensors import safe_open

from deployments.pipeline import Frames, RenderInputs
from deployments.wan.runtime import WanRuntime
from serve_app.models.card import ModelCard, load_card
from serve_app.spec import LoraFile
from tests.deployments.wan.conftest import difference, lora_file, make_spec, options_of
from tests.deployments.wan.held import held

SIZE = 64


class Demo(NamedTuple):
    """One demo in memory."""

    card: ModelCard
    runtime: WanRuntime
    loras: tuple[LoraFile, ...]

    def frames(self, image: npt.NDArray[np.uint8] | None, *loras: LoraFile, prompt: str = "a red fox") -> Frames:
        spec = make_spec(*loras, model=self.card.id, prompt=prompt, width=SIZE, height=SIZE)
        with held(self.runtime.lacking(spec), self.runtime._pipe.transformer.config, strict=True) as files:
            return self.runtime.render(spec, RenderInputs(files, image), lambda _: None).frames


@pytest.fixture(scope="module", params=["wan22_14b_i2v", "wan22_5b"])
def demo(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Demo:
    folder = tmp_path_factory.mktemp(request.param)
    card = load_card(request.param)
    base, experts = resolve_name(str(card.demo))(folder / "checkpoint", folder)
    assert "random weights" in Path(folder, "checkpoint", "DEMO.txt").read_text()
    runtime = WanRuntime.load(options_of(card.of_checkpoint(experts), base, experts))
    files = sorted((folder / "demo").iterdir())
    return Demo(card, runtime, tuple(lora_file(side, file) for side, file in zip(card.experts, files, strict=True)))


def picture(seed: int) -> npt.NDArray[np.uint8]:
    """Large spots, RGB."""
    spots = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return spots.repeat(SIZE // 4, 0).repeat(SIZE // 4, 1)


def test_image_prompt_and_lora_all_show(demo: Demo) -> None:
    one = demo.frames(picture(1))
    assert one.astype(float).std((0, 1, 2)).min() > 15  # of each colour
    assert difference(one, demo.frames(picture(2))) > 4
    assert difference(one, demo.frames(picture(1), prompt="two green boats at night")) > 1
    assert difference(one, demo.frames(picture(1), *demo.loras)) > 4
    np.testing.assert_array_equal(one, demo.frames(picture(1)))


def test_the_loras_name_the_model_that_they_are_for(demo: Demo) -> None:
    for lora in demo.loras:
        with safe_open(lora.location, "pt") as file:
            metadata = file.metadata()
        assert metadata["ss_base_model_version"] == ("wan_2.2_14b" if demo.card.is_pair else "wan_2.2_5b")
        assert json.loads(metadata["training_info"])["step"] == 500
        assert ("noise" in lora.reference) is demo.card.is_pair
