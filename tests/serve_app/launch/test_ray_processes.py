"""Whether Ray's own processes live, tried on processes with their names."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve_app.launch.ray_processes import RayProcesses

WITHIN_S = 60


@pytest.fixture
def raylet(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Yield a child of this process whose name is Ray's."""
    program = shutil.copy(str(shutil.which("sleep")), tmp_path / "raylet")
    with subprocess.Popen([program, "600"]) as process:
        yield process
        process.kill()


def test_a_process_of_ray_that_has_ended_is_named(raylet: "subprocess.Popen[bytes]") -> None:
    own = RayProcesses.of_this_process()
    assert own.gone() is None
    raylet.kill()
    raylet.wait()
    assert own.gone() == "raylet"


def test_one_that_nobody_has_waited_for_has_ended_too(raylet: "subprocess.Popen[bytes]") -> None:
    own = RayProcesses.of_this_process()
    raylet.kill()
    deadline = time.monotonic() + WITHIN_S
    while own.gone() is None:  # a zombie from the moment that it dies
        assert time.monotonic() < deadline
    assert own.gone() == "raylet"


def test_who_joined_a_cluster_has_no_process_to_lose() -> None:
    with subprocess.Popen([str(shutil.which("sleep")), "600"]) as other:
        own = RayProcesses.of_this_process()
        other.kill()
        other.wait()
        assert own.gone() is None
