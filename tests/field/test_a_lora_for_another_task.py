"""A LoRA for image to video on a service for text to video, and the mirror, told by its names alone: warned of."""

from dataclasses import replace

import pytest

from serve_app.loras.formats import Layout, LoraContents, Provenance
from serve_app.loras.warnings import of_file
from serve_app.models.foreign import other_task
from tests.client import body
from tests.fixtures.api import Api
from tests.serve_app.loras.files import METADATA, full, save

T2V, I2V = "Wan 2.2 T2V A14B", "Wan 2.2 I2V A14B"
PLAIN = LoraContents(Layout.AI_TOOLKIT, {None: ()}, (), Provenance(), model=T2V)
NAMES = [
    *("hero_i2v_high_noise", "I2V-hero", "wan22-i2v-a14b_hero", "hero.i2v", "wan22i2v14b_hero", "myI2VHero", "heroI2V"),
    *("hero_image_to_video", "img2vid-hero", "image2video", "hero I2V 480p"),
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_says_image_to_video(name: str) -> None:
    assert other_task([name], T2V) == "Wan I2V (image to video)"
    assert other_task([name], I2V) is None
    (warning,) = of_file(f"{name}.safetensors", PLAIN)
    assert "image to video" in warning
    assert of_file("x.safetensors", replace(PLAIN, provenance=Provenance(names=("mine", name))))


@pytest.mark.parametrize("name", NAMES)
def test_the_mirror(name: str) -> None:
    mirrored = name.replace("i2v", "t2v").replace("I2V", "T2V").replace("image", "text").replace("img", "txt")
    assert other_task([mirrored], I2V) == "Wan T2V (text to video)"
    assert other_task([mirrored], T2V) is None


@pytest.mark.parametrize("name", ["ti2v_hero", "hero", "TI2V-5B", "i2v_and_t2v", "wi2vx", "si2ve", "HI2VX", ""])
def test_a_name_that_says_neither_or_both(name: str) -> None:
    assert other_task([name], T2V) is None


@pytest.mark.parametrize("served", ["this model", "Lantern", "Wan 2.2 TI2V 5B"])
def test_a_model_that_says_no_task_of_its_own(served: str) -> None:
    assert other_task(["hero_i2v"], served) is None


@pytest.mark.parametrize(
    ("file", "metadata"),
    [
        ("hero_i2v_high_noise.safetensors", METADATA),
        ("hero.safetensors", {**METADATA, "name": "hero_i2v"}),
        ("hero.safetensors", {**METADATA, "ss_output_name": "hero-I2V"}),
    ],
)
async def test_through_the_api(file: str, metadata: dict[str, str], api: Api) -> None:
    save(api.lora_root / file, full(), metadata)
    loras = [{"path": file, "transformer": "high"}]
    (spec,) = await api.specs(body(loras=loras))
    assert ["image to video" in warning for warning in spec.warnings] == [True]
    answer = await api.http.post("/v1/loras/inspect", json={"loras": loras})
    assert answer.json()["files"][0]["report"]["warnings"] == list(spec.warnings)
