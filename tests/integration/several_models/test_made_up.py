"""A model that the service does not know, served by a card and a pipeline class alone: `tests.lantern`."""

import base64
import hashlib
import zipfile
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.client import Client
from tests.lantern.loras import save_lora
from tests.serve_app.images.files import file
from tests.serve_app.loras.files import full, save
from tests.service_process import ServiceProcess

LORA = {"path": "lantern.safetensors"}


@pytest.fixture(scope="module")
def lamplighter(fleet: ServiceProcess) -> Iterator[Client]:
    """Yield a client of a service of several models, one of which is the made-up one."""
    save_lora(fleet.directory / "loras" / "lantern.safetensors")
    save(fleet.directory / "loras" / "of_another_model.safetensors", full())
    with Client(fleet.url) as client:
        yield client


def request(*loras: dict[str, Any], **prompt: Any) -> dict[str, Any]:
    return {
        "model": "lantern_1b",
        "loras": list(loras or [LORA]),
        "prompts": [{"prompt": "a lantern", "output_format": "png", **prompt}],
    }


def rendered(client: Client, body: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], list[np.ndarray]]:
    """Return the video, its metadata, and its frames."""
    request_id = client.submit(body)
    status = client.wait(request_id)
    assert status["status"] == "succeeded", status
    result = client.result(request_id)
    (video,), (metadata,) = result["outputs"]["videos"], result["metadata"]["prompts"]
    with zipfile.ZipFile(BytesIO(client.http.get(video["url"]).raise_for_status().content)) as archive:
        frames = [np.asarray(Image.open(archive.open(name))).astype(float) for name in sorted(archive.namelist())]
    return video, metadata, frames


def test_the_model_is_listed_with_its_own_defaults(lamplighter: Client) -> None:
    models = lamplighter.http.get("/v1/models").raise_for_status().json()["models"]
    (model,) = [model for model in models if model["id"] == "lantern_1b"]
    assert model["demo"] is False
    assert (model["base_model"], model["transformer_model"]) == ("lantern/base", "lantern/base")  # one checkpoint
    assert (model["resolution_divisor"], model["default_width"], model["default_num_frames"]) == (48, 150, 24)


def test_a_render_has_the_cards_defaults_rounded_by_its_own_rules(lamplighter: Client) -> None:
    video, metadata, frames = rendered(lamplighter, request())
    assert (video["width"], video["height"]) == (144, 96)  # 150 and 100, floored to 48
    assert (video["num_frames"], video["fps"], video["seed"]) == (17, 12, 7)  # (24 - 1) // 8 * 8 + 1
    assert len(frames) == 17
    assert frames[0].shape == (96, 144, 3)
    assert (metadata["sample_steps"], metadata["guidance_scale"], metadata["shift"]) == (3, 1.5, 7.0)
    assert (metadata["recipe"], metadata["sampler"]) == ("reference", "unipc")
    assert metadata["runtime"]["offload_reason"] == "no weights"


def test_the_preview_recipe_has_the_cards_divisor_and_shift(lamplighter: Client) -> None:
    _, metadata, _ = rendered(lamplighter, {**request(), "recipe": "preview"})
    assert (metadata["width"], metadata["height"]) == (144, 96)
    assert (metadata["sampler"], metadata["shift"]) == ("euler", 2.0)
    _, metadata, _ = rendered(lamplighter, {**request(width=95), "recipe": "preview"})
    assert metadata["width"] == 80


def test_a_lora_of_its_own_architecture_acts_on_its_only_expert(lamplighter: Client, fleet: ServiceProcess) -> None:
    bright = save_lora(fleet.directory / "loras" / "bright.safetensors", light=0.75)
    _, metadata, dim = rendered(lamplighter, request(width=64, height=64))
    (lora,) = metadata["loras"]
    assert (lora["path"], lora["transformer"], lora["network_multiplier"]) == ("lantern.safetensors", "only", 1.0)
    assert metadata["warnings"] == []
    _, _, lit = rendered(lamplighter, request({"path": bright.name}, width=64, height=64))
    _, _, half = rendered(lamplighter, request({"path": bright.name, "network_multiplier": 0.5}, width=64, height=64))
    assert {float((one - other).mean()) for one, other in zip(lit, dim, strict=True)} == {25.0}
    assert half[0].mean() < dim[0].mean() < lit[0].mean()


@pytest.mark.parametrize(
    ("loras", "code"),
    [
        ([{"path": "of_another_model.safetensors"}], "LORA_INVALID"),
        ([{**LORA, "transformer": "high"}], "MOE_FORMAT_NOT_SUPPORTED"),
        ([LORA, LORA], "SINGLE_LORA_ONLY"),
    ],
)
def test_a_lora_that_does_not_fit_is_refused(lamplighter: Client, loras: list[dict[str, Any]], code: str) -> None:
    answer = lamplighter.http.post("/v1/inference", json=request(*loras))
    assert answer.status_code == 400
    assert answer.json()["detail"]["error"]["code"] == code


def test_a_video_starts_from_its_control_image(lamplighter: Client) -> None:
    data = file("PNG", "RGBA", 90, 60)
    image = base64.b64encode(data).decode()
    video, metadata, (first, *_) = rendered(lamplighter, request(ctrl_img=image, width=96, height=96))
    stored = Image.open(BytesIO(data)).convert("RGB").resize((96, 96), Image.Resampling.LANCZOS)
    assert (video["width"], video["height"]) == (96, 96)
    assert np.array_equal(first, np.asarray(stored))
    assert metadata["image"]["sha256"] == hashlib.sha256(data).hexdigest()
    assert (metadata["image"]["fit"], metadata["image"]["alpha_dropped"]) == ("stretch", True)
    transparent, stretched = metadata["warnings"]
    assert "transparent parts, which are ignored" in transparent
    assert "stretched from 90 x 60 to 96 x 96 pixels" in stretched
