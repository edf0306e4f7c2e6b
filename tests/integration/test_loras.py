"""LoRAs on a real cluster: from elsewhere, in other layouts, under the preview recipe."""

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.client import Client, body, pair, pixels
from tests.loras.layouts import write
from tests.loras.model import DEMO
from tests.loras.writer import Writer
from tests.serve_app.loras.sources.servers import HUB_TOKEN, HubStandIn
from tests.service_process import ServiceProcess


def metadata(client: Client, request: dict[str, Any]) -> dict[str, Any]:
    """Return what the result says of the first prompt of a request that must succeed."""
    request_id = client.submit(request)
    status = client.wait(request_id)
    assert status["status"] == "succeeded", status
    found: dict[str, Any] = client.result(request_id)["metadata"]["prompts"][0]
    return found


@pytest.fixture
def on_the_hub(lora_hub: HubStandIn, tmp_path: Path) -> list[dict[str, str]]:
    """Return a pair in the gated repository."""
    names = {side: f"mine_{side}_noise.safetensors" for side in ("high", "low")}
    for seed, name in enumerate(names.values(), 50):
        lora_hub.files[name] = write("ai-toolkit", tmp_path, sizes=DEMO, seed=seed).path.read_bytes()
    lora_hub.publish()
    return [{"path": f"hf://me/pair/{name}", "transformer": side} for side, name in names.items()]


def test_a_pair_in_a_gated_repository_renders_as_its_local_copy_does(
    client: Client,
    service: ServiceProcess,
    lora_root: Path,
    lora_hub: HubStandIn,
    on_the_hub: list[dict[str, str]],
) -> None:
    refused = client.http.post("/v1/inference", json=body(loras=on_the_hub))
    assert refused.status_code == httpx.codes.BAD_REQUEST
    assert "hf_token" in refused.json()["detail"]["error"]["message"]
    request = body({"output_format": "png"}, {"output_format": "png", "seed": 43}, loras=on_the_hub, hf_token=HUB_TOKEN)
    remote = client.render(request)
    state = [path for path in (service.directory / "var").rglob("*") if path.is_file()]
    assert [path.name for path in state if HUB_TOKEN.encode() in path.read_bytes()] == []
    for lora in on_the_hub:
        name = lora["path"].rpartition("/")[2]
        (lora_root / name).write_bytes(lora_hub.files[name])
    local = client.render(body({"output_format": "png"}, {"output_format": "png", "seed": 43}, loras=pair("mine")))
    assert [pixels(archive) for archive in local] == [pixels(archive) for archive in remote]


def test_a_download_that_turns_out_to_be_damaged_fails_its_render_with_the_tensor(
    client: Client, lora_hub: HubStandIn, tmp_path: Path
) -> None:
    writer = Writer()
    for module in DEMO.linears()[:2]:
        stem = f"diffusion_model.{module.original}"
        writer.put(f"{stem}.lora_A.weight", np.full((2, module.shape[1]), np.nan))
        writer.put(f"{stem}.lora_B.weight", np.zeros((module.shape[0], 2)))
    lora_hub.files["broken_high_noise.safetensors"] = writer.save(tmp_path / "broken.safetensors").read_bytes()
    lora_hub.publish()
    loras = [{"path": "hf://me/pair/broken_high_noise.safetensors", "transformer": "high"}]
    status = client.wait(client.submit(body(loras=loras, hf_token=HUB_TOKEN)))
    assert (status["status"], status["error_code"]) == ("failed", "LORA_NOT_FETCHED")
    assert "NaN" in status["error"]


def test_the_preview_recipe_says_what_it_did_and_leaves_no_trace(client: Client) -> None:
    before = client.frames()
    found = metadata(client, body({"width": 80, "height": 112, "sample_steps": 8}, recipe="preview"))
    assert (found["recipe"], found["sampler"], found["shift"], found["sampler_assumed"]) == (
        "preview",
        "euler",
        5,
        False,
    )
    assert (found["width"], found["height"], found["num_frames"]) == (80, 112, 5)
    assert 0 < found["boundary_step"] < 8
    assert found["trained_with"] == "0.12.26"
    assert [(lora["transformer"], lora["application"]) for lora in found["loras"]] == [
        ("high", "merged"),
        ("low", "merged"),
    ]
    assert all(len(lora["sha256"]) == 64 for lora in found["loras"])
    assert {"fetch", "lora", "text", "denoise", "decode", "encode", "store"} <= found["timings"].keys()
    assert client.frames() == before


def test_a_sampler_of_the_prompts_own_counts(client: Client) -> None:
    found = metadata(client, body({"sampler": "euler", "shift": 8}))
    assert (found["recipe"], found["sampler"], found["shift"]) == ("reference", "euler", 8)
    assert found["loras"][0]["application"] == "adapter"
    assert client.frames(sampler="euler") != client.frames()


@pytest.mark.parametrize("layout", ["lokr", "dora-ai-toolkit", "extracted", "combined"])
def test_other_layouts_act(client: Client, lora_root: Path, layout: str) -> None:
    file = write(layout, lora_root, sizes=DEMO, seed=3).path
    sides: list[dict[str, Any]] = [{}] if layout == "combined" else [{"transformer": "high"}, {"transformer": "low"}]
    loras = [{"path": file.name, **side} for side in sides]
    assert client.frames(loras=loras) != client.frames(loras=[{**lora, "network_multiplier": 0.0} for lora in loras])
    found = metadata(client, body(loras=loras))
    expected = "adapter" if layout == "combined" else "merged"
    assert [lora["application"] for lora in found["loras"]] == [expected, expected]


def test_what_is_left_out_is_listed_in_the_result(client: Client, lora_root: Path) -> None:
    writer = Writer()
    (first, *_) = DEMO.linears()
    writer.lora(first, f"diffusion_model.{first.original}")
    writer.put("diffusion_model.blocks.77.ffn.0.diff", np.zeros(3))
    writer.save(lora_root / "part_high_noise.safetensors")
    loras = [{"path": "part_high_noise.safetensors", "transformer": "high"}]
    found = metadata(client, body(loras=loras, strict=False))
    assert found["loras"][0]["left_out"] == ["diffusion_model.blocks.77.ffn.0.diff"]
    assert any("left out" in warning for warning in found["warnings"])


def test_a_second_pair_acts_beside_the_first_and_leaves_no_trace(client: Client, lora_root: Path) -> None:
    file = write("kohya-alpha", lora_root, sizes=DEMO, seed=9).path
    style = [{"path": file.name, "transformer": side, "network_multiplier": 0.8} for side in ("high", "low")]
    alone, both = client.frames(), client.frames(loras=pair() + style)
    assert both != alone
    assert client.frames(loras=pair() + [{**lora, "network_multiplier": 0.0} for lora in style]) == alone
    assert client.frames() == alone
    assert client.frames(loras=pair() + style) == both
