"""What tests ask of a running service."""

import time
import zipfile
from io import BytesIO
from types import TracebackType
from typing import Any, Self

import httpx
from PIL import Image

ENDED = ("succeeded", "failed", "canceled")


def pair(name: str = "demo/wan22_demo_000000500") -> list[dict[str, Any]]:
    """Return both sides of a LoRA pair."""
    return [{"path": f"{name}_{side}_noise.safetensors", "transformer": side} for side in ("high", "low")]


def body(*prompts: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return a small request; each prompt is a 64x64x5 render of two steps, changed as given."""
    small = {"prompt": "a fox", "width": 64, "height": 64, "num_frames": 5, "sample_steps": 2}
    renders = [{**small, **prompt} for prompt in prompts or ({},)]
    return {"model": "wan22_14b_t2v", "loras": pair(), "prompts": renders, **changes}


def pixels(archive: bytes) -> list[bytes]:
    """Return the pixels of each frame in a ZIP of PNG files, whose bytes also tell the settings."""
    with zipfile.ZipFile(BytesIO(archive)) as frames:
        return [Image.open(BytesIO(frames.read(name))).tobytes() for name in sorted(frames.namelist())]


class Client:
    """Posts, waits, downloads."""

    def __init__(self, url: str) -> None:
        self.http = httpx.Client(base_url=url, timeout=60)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _tb: TracebackType | None
    ) -> None:
        self.http.close()

    def submit(self, request: dict[str, Any]) -> str:
        """Post a request that must be accepted; its id."""
        answer = self.http.post("/v1/inference", json=request)
        assert answer.status_code == httpx.codes.OK, answer.text
        request_id: str = answer.json()["request_id"]
        return request_id

    def status(self, request_id: str) -> dict[str, Any]:
        """Return the status of a request."""
        status: dict[str, Any] = self.http.get(f"/v1/requests/{request_id}/status").raise_for_status().json()
        return status

    def wait(self, request_id: str, *until: str, timeout_s: float = 90) -> dict[str, Any]:
        """Wait until a request has one of these statuses (any final one by default)."""
        deadline = time.monotonic() + timeout_s
        while (status := self.status(request_id))["status"] not in (until or ENDED):
            assert time.monotonic() < deadline, f"still {status}"
            time.sleep(0.05)
        return status

    def result(self, request_id: str) -> dict[str, Any]:
        """Return the result of a request."""
        result: dict[str, Any] = self.http.get(f"/v1/requests/{request_id}/result").raise_for_status().json()
        return result

    def render(self, request: dict[str, Any]) -> list[bytes]:
        """Post a request, wait for its success, download its outputs."""
        request_id = self.submit(request)
        status = self.wait(request_id)
        assert status["status"] == "succeeded", status
        videos = self.result(request_id)["outputs"]["videos"]
        return [self.http.get(video["url"]).raise_for_status().content for video in videos]

    def frames(self, **prompt: Any) -> list[bytes]:
        """Return the pixels of each frame of one render; `loras` may be among the changes."""
        loras = prompt.pop("loras", pair())
        (archive,) = self.render(body({**prompt, "output_format": "png"}, loras=loras))
        return pixels(archive)
