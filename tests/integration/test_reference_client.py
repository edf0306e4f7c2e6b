"""A client that was written for the reference server: its documentation's example, with this model's pair."""

import time
from typing import Any

import requests

from tests.service_process import ServiceProcess


def test_the_references_python_example_works_unchanged(service: ServiceProcess) -> None:
    base_url = service.url
    payload: dict[str, Any] = {
        "model": "wan22_14b_t2v",
        "trigger_word": "sks",
        "loras": [
            {
                "path": "demo/wan22_demo_000000500_low_noise.safetensors",
                "transformer": "low",
                "network_multiplier": 1.0,
            },
            {
                "path": "demo/wan22_demo_000000500_high_noise.safetensors",
                "transformer": "high",
                "network_multiplier": 1.0,
            },
        ],
        "prompts": [
            {
                "prompt": "[trigger] a photo of a person",
                "width": 96,
                "height": 64,
                "seed": 42,
                "sample_steps": 2,
                "guidance_scale": 4.0,
                "neg": "",
                "num_frames": 9,
                "fps": 16,
            }
        ],
    }

    r = requests.post(f"{base_url}/v1/inference", json=payload, timeout=30)
    r.raise_for_status()
    job = r.json()
    request_id = job["request_id"]
    while True:
        s = requests.get(f"{base_url}/v1/requests/{request_id}/status", timeout=30)
        s.raise_for_status()
        status = s.json()["status"]
        assert status in ("in_queue", "in_progress", "succeeded")
        if status in ("succeeded", "failed", "canceled"):
            break
        time.sleep(0.2)
    result = requests.get(f"{base_url}/v1/requests/{request_id}/result", timeout=30)
    result.raise_for_status()

    assert requests.get(job["status_url"], timeout=30).json()["status"] == "succeeded"
    assert requests.get(job["result_url"], timeout=30).json() == result.json()
    (video,) = result.json()["outputs"]["videos"]
    assert {key: video[key] for key in ("format", "width", "height", "num_frames", "fps", "seed")} == {
        "format": "mp4",
        "width": 96,
        "height": 64,
        "num_frames": 9,
        "fps": 16,
        "seed": 42,
    }
    assert requests.get(video["url"], timeout=30).headers["content-type"] == "video/mp4"
    with open(video["file_path"], "rb") as file:  # noqa: PTH123 - as such a client would
        assert file.read() == requests.get(video["url"], timeout=30).content


def test_it_finds_its_models_and_health(service: ServiceProcess) -> None:
    (model,) = requests.get(f"{service.url}/v1/models", timeout=30).json()["models"]
    assert (model["id"], model["default_steps"], model["default_num_frames"]) == ("wan22_14b_t2v", 25, 41)
    assert model["demo"] is True
    health = requests.get(f"{service.url}/health", timeout=30).json()
    assert (health["status"], health["profile"]) == ("healthy", "cpu")
    assert "tiny checkpoint" in health["notice"]
    assert "tiny checkpoint" in service.log.read_text()
