"""Wan 2.2 I2V A14B and TI2V 5B in one service, over HTTP, each with its demo."""

import base64
import io
import time
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tests.client import Client
from tests.integration.several_models.conftest import HEARTBEAT_S
from tests.service_process import ServiceProcess

SIZE = {"width": 64, "height": 64, "num_frames": 5, "sample_steps": 2, "output_format": "png"}
PAIR = [
    {"path": f"demo/wan22_i2v_demo_000000500_{side}_noise.safetensors", "transformer": side} for side in ("high", "low")
]
ENDLESS = {"width": 256, "height": 256, "num_frames": 41, "sample_steps": 150}  # minutes
LORAS = {"wan22_14b_i2v": PAIR, "wan22_5b": [{"path": "demo/wan22_5b_demo_000000500.safetensors"}]}


@pytest.fixture(scope="module")
def siblings(fleet: ServiceProcess) -> Iterator[Client]:
    with Client(fleet.url) as client:
        yield client


def image(colour: str) -> str:
    file = io.BytesIO()
    Image.new("RGB", (90, 60), colour).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def request(model: str, **prompt: Any) -> dict[str, Any]:
    return {"model": model, "loras": LORAS[model], "prompts": [{"prompt": "a fox", **SIZE, **prompt}]}


def video(client: Client, model: str, **prompt: Any) -> npt.NDArray[np.int64]:
    (archive,) = client.render(request(model, **prompt))
    with zipfile.ZipFile(io.BytesIO(archive)) as frames:
        pictures = [Image.open(io.BytesIO(frames.read(name))) for name in sorted(frames.namelist())]
        return np.stack([np.asarray(picture) for picture in pictures]).astype(int)


@pytest.mark.parametrize("model", LORAS)
def test_an_image_decides_the_video_and_the_same_request_gives_the_same_frames(siblings: Client, model: str) -> None:
    red = video(siblings, model, ctrl_img=image("red"))
    assert red.shape == (5, 64, 64, 3)
    np.testing.assert_array_equal(video(siblings, model, ctrl_img=image("red")), red)
    assert np.abs(video(siblings, model, ctrl_img=image("blue")) - red).mean() > 1


def test_the_5b_does_without_an_image(siblings: Client) -> None:
    assert video(siblings, "wan22_5b").shape == (5, 64, 64, 3)


def test_a_cancel_frees_the_device_without_waiting_for_a_heartbeat(siblings: Client) -> None:
    running = siblings.submit(request("wan22_14b_i2v", ctrl_img=image("red"), **ENDLESS))
    siblings.wait(running, "in_progress")
    queued = siblings.submit(request("wan22_14b_i2v", ctrl_img=image("red")))
    time.sleep(1)  # so that it is at its steps, or close
    started = time.monotonic()
    siblings.http.post(f"/v1/requests/{running}/cancel").raise_for_status()
    assert siblings.wait(running)["status"] == "canceled"
    assert siblings.wait(queued)["status"] == "succeeded"
    assert time.monotonic() - started < HEARTBEAT_S / 2
