"""Whether Ray's own processes live, tried on processes with their names."""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
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


_SUPERVISED = """
import os, signal, subprocess, sys, time
from serve_app.launch.ray_processes import RayProcesses, adopt_orphans
adopt_orphans()
raylet = subprocess.Popen([sys.argv[1], "-c", "sleep 600 & echo $!; wait"], stdout=subprocess.PIPE, text=True)
print(raylet.stdout.readline(), end="", flush=True)
own = RayProcesses.of_this_process()
raylet.kill()  # before anyone has looked at what it has started
while own.gone() is None:
    time.sleep(0.01)
own.kill()
print(own.gone(), flush=True)
"""


def test_what_a_dead_raylet_had_started_is_ended_too(tmp_path: Path) -> None:
    program = shutil.copy(str(shutil.which("bash")), tmp_path / "raylet")
    done = subprocess.run(
        [sys.executable, "-c", _SUPERVISED, program], check=True, capture_output=True, text=True, timeout=WITHIN_S
    )
    worker, gone = done.stdout.split()
    assert gone == "raylet"
    with suppress(psutil.NoSuchProcess):  # whoever inherits it may have taken note of its end
        assert psutil.Process(int(worker)).status() == psutil.STATUS_ZOMBIE


_ORPHANED = """
import subprocess, sys, time
import psutil
from serve_app.launch import ray_processes
ray_processes._REAP_EVERY_S = 0.0
ray_processes.adopt_orphans()
raylet = subprocess.Popen([sys.argv[1], "600"])
own = ray_processes.RayProcesses.of_this_process()
subprocess.run(["sh", "-c", "sleep 0.2 & exit"], check=True)
while len(psutil.Process().children()) < 2:  # the orphan has come
    time.sleep(0.01)
while len(psutil.Process().children()) > 1:  # it has ended, and has been noted
    assert own.gone() is None
    time.sleep(0.01)
raylet.kill()
"""


def test_an_orphan_that_ends_stays_no_zombie(tmp_path: Path) -> None:
    program = shutil.copy(str(shutil.which("sleep")), tmp_path / "raylet")
    subprocess.run([sys.executable, "-c", _ORPHANED, program], check=True, timeout=WITHIN_S)
