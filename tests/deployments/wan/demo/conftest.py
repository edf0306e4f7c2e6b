"""The trained demo on one runtime, and what it shows."""

from pathlib import Path

import pytest

from deployments.wan.demo import TRAINED
from deployments.wan.demo.untrained import DemoCheckpoint
from deployments.wan.runtime import WanRuntime
from serve_app.spec import PAIR, LoraFile
from tests.deployments.wan.conftest import load_demo, lora_file
from tests.deployments.wan.demo.gallery import Gallery

SIDES = ("high_noise", "low_noise")


def trained_pair(name: str, multiplier: float = 1.0, folder: Path = TRAINED / "loras") -> tuple[LoraFile, ...]:
    """Return both sides of a packaged pair."""
    files = (folder / f"{name}_000000500_{side}.safetensors" for side in SIDES)
    return tuple(lora_file(expert, file, multiplier) for expert, file in zip(PAIR, files, strict=True))


@pytest.fixture(scope="session")
def trained() -> WanRuntime:
    return load_demo(DemoCheckpoint(TRAINED / "checkpoint", TRAINED / "checkpoint"))


@pytest.fixture(scope="session")
def gallery(trained: WanRuntime) -> Gallery:
    return Gallery(trained)
