"""Renders on a real cluster: what comes out, and that none leaves a trace on the next."""

import shutil
import time
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from tests.client import ENDED, Client, body, pair
from tests.deployments.media.clips import read_video
from tests.loras.layouts import write
from tests.loras.model import DEMO


def test_an_mp4_is_what_was_asked_for(client: Client, tmp_path: Path) -> None:
    (content,) = client.render(body({"width": 100, "height": 70, "num_frames": 6, "fps": 24}))
    path = tmp_path / "video.mp4"
    path.write_bytes(content)
    video = read_video(path)
    assert video.frames.shape == (5, 64, 96, 3)
    assert video.times == pytest.approx([frame / 24 for frame in range(5)], abs=1e-3)


def test_a_webp_moves(client: Client) -> None:
    (image,) = client.render(body({"output_format": "webp", "num_frames": 5}))
    with Image.open(BytesIO(image)) as webp:
        assert (webp.format, webp.size, getattr(webp, "n_frames", 1)) == ("WEBP", (64, 64), 5)


def test_each_prompt_gets_its_own_video_in_order(client: Client) -> None:
    request_id = client.submit(body({"seed": 1}, {"num_frames": 9}, {"output_format": "png"}))
    assert client.wait(request_id)["progress"] == 1
    videos = client.result(request_id)["outputs"]["videos"]
    assert [(v["index"], v["seed"], v["num_frames"], v["format"]) for v in videos] == [
        (0, 1, 5, "mp4"),
        (1, 43, 9, "mp4"),
        (2, 44, 5, "png"),
    ]


def test_another_pair_or_scale_or_side_leaves_no_trace(client: Client) -> None:
    first = client.frames()
    half = [{**side, "network_multiplier": 0.5} for side in pair()]
    high_only = pair()[:1]
    others = [client.frames(loras=loras) for loras in (half, high_only, pair()[1:])]
    assert len({tuple(frames) for frames in [first, *others]}) == 4
    assert client.frames() == first
    assert client.frames(loras=half) == others[0]
    assert client.frames(loras=high_only) == others[1]


def test_renders_that_wait_together_are_kept_apart(client: Client) -> None:
    alone = {seed: client.frames(seed=seed) for seed in (1, 2)}
    requests = {seed: client.submit(body({"seed": seed, "output_format": "png"})) for seed in (1, 2)}
    noise = [client.submit(body({"seed": seed}, loras=pair()[: 1 + seed % 2])) for seed in range(6)]
    for request_id in [*requests.values(), *noise]:
        assert client.wait(request_id)["status"] == "succeeded"
    assert {seed: client.frames(seed=seed) for seed in requests} == alone


def test_the_result_says_what_was_used(client: Client) -> None:
    request_id = client.submit(body({"seed": -1}, loras=[{**side, "network_multiplier": 0.5} for side in pair()]))
    client.wait(request_id)
    result = client.result(request_id)
    (used,) = result["metadata"]["prompts"]
    assert used["recipe"] == "reference"
    assert [lora["network_multiplier"] for lora in used["loras"]] == [0.5, 0.5]
    assert used["runtime"]["dtype"] == "float32"
    assert used["timings"]["generate"] > 0
    assert 0 <= result["outputs"]["videos"][0]["seed"] < 2**32


def test_cancel_stops_a_running_render_and_frees_the_generator(client: Client) -> None:
    request_id = client.submit(body({"sample_steps": 150, "num_frames": 41, "width": 128, "height": 128}))
    queued = client.submit(body())
    client.wait(request_id, "in_progress")
    for _ in range(2):
        assert client.http.post(f"/v1/requests/{request_id}/cancel").status_code == 200
    status = client.wait(request_id)
    assert status["status"] == "canceled"
    assert status["progress"] < 1
    assert client.wait(queued)["status"] == "succeeded"


def test_cancel_after_the_last_step_still_counts(client: Client) -> None:
    request_id = client.submit(body({"sample_steps": 1, "num_frames": 41, "width": 192, "height": 192}))
    while (status := client.status(request_id))["progress"] < 1:
        assert status["status"] not in ENDED
        time.sleep(0.02)
    assert status["status"] == "in_progress"
    client.http.post(f"/v1/requests/{request_id}/cancel").raise_for_status()
    assert client.wait(request_id)["status"] == "canceled"
    assert not client.result(request_id)["outputs"]["videos"]


def test_cancel_of_a_queued_render_takes_effect_at_once(client: Client) -> None:
    running = client.submit(body({"sample_steps": 60}))
    queued = client.submit(body())
    assert client.http.post(f"/v1/requests/{queued}/cancel").json()["status"] == "canceled"
    assert client.wait(running)["status"] == "succeeded"
    assert client.status(queued)["status"] == "canceled"


@pytest.fixture
def fleeting(lora_root: Path) -> Path:
    """Return a pair whose content no replica has seen, in `fleeting/`."""
    folder = lora_root / "fleeting"
    folder.mkdir()
    for seed, lora in enumerate(pair("fleeting/mine")):
        write("ai-toolkit", folder, sizes=DEMO, seed=seed).path.rename(lora_root / lora["path"])
    return folder


def test_a_lora_that_is_replaced_after_acceptance_fails_its_render_and_no_other(client: Client, fleeting: Path) -> None:
    running = client.submit(body({"sample_steps": 150}))
    client.wait(running, "in_progress")
    doomed = client.submit(body(loras=pair("fleeting/mine")))
    high, low = sorted(fleeting.glob("*.safetensors"))
    high.write_bytes(low.read_bytes())
    status = client.wait(doomed)
    assert (status["status"], status["error_code"]) == ("failed", "LORA_CHANGED")
    assert high.name in status["error"]
    assert client.wait(client.submit(body()))["status"] == "succeeded"
    shutil.rmtree(fleeting)


def test_progress_is_seen_while_a_render_runs(client: Client) -> None:
    request_id = client.submit(body({"sample_steps": 150}))
    seen = set()
    while (status := client.status(request_id))["status"] in ("in_queue", "in_progress"):
        seen.add(status["progress"])
    assert status["status"] == "succeeded"
    assert any(0 < progress < 1 for progress in seen)
