"""Two models in one service on a node with one GPU: who has work gets it, and gives it back when idle.

The GPU is one in Ray's books only, where each Generator takes a whole one: the made-up model draws on the CPU.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.client import Client
from tests.lantern import CARD, ENVIRONMENT, write_card
from tests.lantern.loras import save_lora
from tests.service_process import ServiceProcess

FIRST, SECOND = "lantern_1b", "lantern_2b"
SAMPLE_S = 0.1


@pytest.fixture
def both(tmp_path: Path) -> Iterator[ServiceProcess]:
    """Yield a service of two models, whose Generators take a GPU each, on one GPU; idle ones go after five seconds."""
    environment = {**ENVIRONMENT, "RAY_OVERRIDE_RESOURCES": json.dumps({"CPU": 8, "GPU": 1})}
    models = [{"model": str(CARD)}, {"model": str(write_card(tmp_path / "second.yaml", SECOND))}]
    service = ServiceProcess(tmp_path, environment, profile="gpu", models=models, min_generators=0, downscale_delay_s=5)
    save_lora(tmp_path / "loras" / "lantern.safetensors")
    service.start()
    yield service
    service.kill()


def request(model: str, renders: int = 1) -> dict[str, Any]:
    prompts = [{"prompt": f"lantern {number}", "num_frames": 9} for number in range(renders)]
    return {"model": model, "loras": [{"path": "lantern.safetensors"}], "prompts": prompts}


def test_an_idle_model_gives_its_gpu_to_the_other(both: ServiceProcess) -> None:
    with Client(both.url) as client:
        for model in (FIRST, SECOND, FIRST):
            request_id = client.submit(request(model))
            assert client.wait(request_id)["status"] == "succeeded"
            result = client.result(request_id)
            assert result["model"] == model
            assert [prompt["model"] for prompt in result["metadata"]["prompts"]] == [model]
        # Both at once: the one that comes second waits until the first one is done and idle.
        together = [client.submit(request(model, renders=3)) for model in (SECOND, FIRST)]
        assert [client.wait(request_id)["status"] for request_id in together] == ["succeeded"] * 2
        deadline = time.monotonic() + 60
        while both.replicas("Generator-"):
            assert time.monotonic() < deadline, "a Generator keeps the GPU"
            time.sleep(SAMPLE_S)
