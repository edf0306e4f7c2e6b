"""The trained demo on one runtime, and readings of its videos."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from deployments.wan.demo import TRAINED
from deployments.wan.demo.untrained import DemoCheckpoint
from deployments.wan.runtime import WanRuntime
from serve_app.spec import PAIR, LoraFile
from tests.deployments.wan.conftest import frames_of, load_demo, lora_file, make_spec
from tests.deployments.wan.demo.readings import Reading, read

SIDES = ("high_noise", "low_noise")
Seen = Callable[..., Reading | None]


def trained_pair(name: str, multiplier: float = 1.0, folder: Path = TRAINED / "loras") -> tuple[LoraFile, ...]:
    """Return both sides of a packaged pair."""
    files = (folder / f"{name}_000000500_{side}.safetensors" for side in SIDES)
    return tuple(lora_file(expert, file, multiplier) for expert, file in zip(PAIR, files, strict=True))


@contextmanager
def every_core() -> Iterator[None]:
    """Compute with all cores. A runtime takes half of them, and no bits are compared here."""
    before = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.fixture(scope="session")
def trained() -> WanRuntime:
    return load_demo(DemoCheckpoint(TRAINED / "checkpoint", TRAINED / "checkpoint"))


@pytest.fixture(scope="session")
def seen(trained: WanRuntime) -> Seen:
    """Render a prompt as the packaged demo is meant to be used, and read what the video shows."""

    def seen(prompt: str, seed: int, *loras: LoraFile, **changes: object) -> Reading | None:
        shape = {"width": 128, "height": 128, "num_frames": 17, "sample_steps": 8}
        with every_core():
            return read(frames_of(trained, make_spec(*loras, prompt=prompt, seed=seed, **(shape | changes))))

    return seen
