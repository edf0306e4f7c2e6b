"""Wan 2.2 I2V A14B and TI2V 5B at full size, as requests meet them: defaults, rules in their order, LoRAs matched."""

import base64
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from PIL import Image

from serve_app.spec import Expert
from tests.fixtures.api import Api, Json, ServeApi
from tests.serve_app.loras.files import save

PAIR = [{"path": f"wan22_14b_{side}_noise.safetensors", "transformer": side} for side in ("high", "low")]
ONE = {"path": "wan22_5b.safetensors"}


def _lora(path: Path, width: int, base: str) -> None:
    """Put one layer of the first block."""
    prefix = "diffusion_model.blocks.0.self_attn.q"
    tensors = {f"{prefix}.lora_A.weight": (1, width), f"{prefix}.lora_B.weight": (width, 1)}
    save(
        path, {key: np.full(shape, 0.5, np.float16) for key, shape in tensors.items()}, {"ss_base_model_version": base}
    )


def _image() -> str:
    file = BytesIO()
    Image.new("RGB", (40, 30), "teal").save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def i2v(*prompts: Json, **changes: object) -> Json:
    return {"model": "wan22_14b_i2v", "loras": PAIR, "prompts": [_prompt(prompt) for prompt in prompts], **changes}


def ti2v(*prompts: Json, **changes: object) -> Json:
    return {"model": "wan22_5b", "loras": [ONE], "prompts": [_prompt(prompt) for prompt in prompts], **changes}


def _prompt(prompt: Json) -> Json:
    return {"prompt": "a fox", **prompt}


@pytest_asyncio.fixture
async def siblings(serve_api: ServeApi) -> AsyncIterator[Api]:
    """Yield the API of a service of both."""
    async with serve_api(models=[{"model": "wan22_14b_i2v"}, {"model": "wan22_5b"}], demo=False) as api:
        for side in ("high", "low"):
            _lora(api.lora_root / f"wan22_14b_{side}_noise.safetensors", 5120, "wan_2.2_14b")
            _lora(api.lora_root / f"hero_t2v_{side}_noise.safetensors", 5120, "wan_2.2_14b")
        _lora(api.lora_root / ONE["path"], 3072, "wan_2.2_5b")
        yield api


async def test_sizes_and_frames_follow_the_card_of_the_model(siblings: Api) -> None:
    asked = {"width": 100, "height": 90, "num_frames": 40, "ctrl_img": _image()}
    for recipe in ("reference", "preview"):
        (spec,) = await siblings.specs(i2v(asked, recipe=recipe))
        assert (spec.width, spec.height, spec.num_frames) == (96, 80, 37)
        assert [lora.expert for lora in spec.loras] == [Expert.HIGH, Expert.LOW]
        (spec,) = await siblings.specs(ti2v(asked, recipe=recipe))
        assert (spec.width, spec.height, spec.num_frames) == (96, 64, 37)
        assert [lora.expert for lora in spec.loras] == [Expert.ONLY]


async def test_what_is_omitted_is_what_the_reference_takes(siblings: Api) -> None:
    for request in (i2v({"ctrl_img": _image()}), ti2v({})):
        (spec,) = await siblings.specs(request)
        assert (spec.width, spec.height, spec.num_frames, spec.fps) == (1024, 1024, 41, 16)
        assert (spec.sample_steps, spec.guidance_scale, spec.seed, spec.negative_prompt) == (25, 4.0, 42, "")
        assert (spec.image is None) is (spec.model == "wan22_5b")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"model": "wan22_14b_t2v", "loras": []}, "MODEL_NOT_FOUND"),
        ({"loras": []}, "LORA_FILE_REQUIRED"),
        ({"loras": [{"path": "absent.safetensors"}, PAIR[0], PAIR[0]]}, "MOE_FORMAT_REQUIRED"),
        ({"loras": [{"path": "absent.safetensors", "transformer": "low"}] * 2}, "SINGLE_MOE_CONFIG_ONLY"),
        ({"loras": [{"path": "absent.safetensors", "transformer": "low"}]}, "LORA_NOT_FOUND"),
        ({}, "CONTROL_IMAGE_REQUIRED"),
    ],
)
async def test_rules_of_i2v_in_the_reference_s_order(siblings: Api, changes: Json, code: str) -> None:
    error = await siblings.refused(i2v({}, **changes), code)
    if code == "CONTROL_IMAGE_REQUIRED":
        assert error["details"] == {"model": "wan22_14b_i2v", "prompt_index": 0}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"loras": []}, "LORA_FILE_REQUIRED"),
        ({"loras": [{"path": "absent.safetensors", "transformer": "low"}] * 2}, "MOE_FORMAT_NOT_SUPPORTED"),
        ({"loras": [{"path": "absent.safetensors"}] * 2}, "SINGLE_LORA_ONLY"),
        ({"loras": [{"path": "absent.safetensors"}]}, "LORA_NOT_FOUND"),
    ],
)
async def test_rules_of_ti2v_in_the_reference_s_order(siblings: Api, changes: Json, code: str) -> None:
    await siblings.refused(ti2v({}, **changes), code)


async def test_a_lora_of_the_other_size_is_refused_and_its_model_named(siblings: Api) -> None:
    error = await siblings.refused(ti2v({}, loras=[{"path": PAIR[0]["path"]}]), "LORA_INVALID")
    assert "Wan 2.1 or 2.2 14B (width 5120)" in error["message"]
    assert error["message"].endswith(
        "it fits Wan 2.2 I2V A14B, which this service serves too: send model: wan22_14b_i2v"
    )
    assert error["details"]["models"] == ["wan22_14b_i2v"]
    request = i2v({"ctrl_img": _image()}, loras=[{**ONE, "transformer": "high"}])
    error = await siblings.refused(request, "LORA_INVALID")
    assert "Wan 2.2 TI2V 5B (width 3072)" in error["message"]
    assert error["message"].endswith("send model: wan22_5b, without `transformer`")


async def test_a_pair_whose_name_says_text_to_video_is_warned_of(siblings: Api) -> None:
    named = [{**lora, "path": lora["path"].replace("wan22_14b", "hero_t2v")} for lora in PAIR]
    (spec,) = await siblings.specs(i2v({"ctrl_img": _image()}, loras=named))
    assert sum("looks by its name like a LoRA for Wan T2V (text to video)" in text for text in spec.warnings) == 2
    (spec,) = await siblings.specs(i2v({"ctrl_img": _image()}))
    assert not any("looks by its name" in text for text in spec.warnings)


async def test_models_say_what_they_need(siblings: Api) -> None:
    models = {model["id"]: model for model in (await siblings.get("/v1/models"))["models"]}
    assert {name: model["requires_control_image"] for name, model in models.items()} == {
        "wan22_14b_i2v": True,
        "wan22_5b": False,
    }
    assert [model["resolution_divisor"] for model in models.values()] == [16, 32]


async def test_each_sibling_has_a_draft_of_its_own(serve_api: ServeApi) -> None:
    few_steps = [{"path": f"few_steps_{lora['path']}", "transformer": lora["transformer"]} for lora in PAIR]
    models = [
        {"model": "wan22_14b_i2v", "draft": {"loras": few_steps}},
        {"model": "wan22_5b", "draft": {"loras": [{"path": f"few_steps_{ONE['path']}"}], "sample_steps": 8}},
    ]
    async with serve_api(models=models, demo=False) as api:
        for lora in (*PAIR, ONE):
            for name in (lora["path"], f"few_steps_{lora['path']}"):
                _lora(api.lora_root / name, 5120 if "14b" in name else 3072, "")
        (spec,) = await api.specs(i2v({"ctrl_img": _image()}, recipe="draft"))
        assert [lora.expert for lora in spec.draft] == [Expert.HIGH, Expert.LOW]
        assert (spec.sample_steps, spec.guidance_scale, spec.shift) == (4, 1.0, 5.0)
        (spec,) = await api.specs(ti2v({}, recipe="draft"))
        assert [lora.expert for lora in spec.draft] == [Expert.ONLY]
        assert spec.sample_steps == 8
