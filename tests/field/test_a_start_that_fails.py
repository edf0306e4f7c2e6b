"""A service that cannot start ends: with status 1, within half a minute, and a last line that says what to do.

One start is the command's; the others call in this process what the command calls.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import ray

from serve_app.launch import supervisor
from tests.service_process import free_port

if TYPE_CHECKING:
    from deployments.wan.demo.untrained import DemoCheckpoint

ENOUGH_S = 30.0


@dataclass(frozen=True)
class Ended:
    """How a start ended. `last` is the last line that a person sees; `seconds` do not count what Python imports."""

    status: int
    last: str
    everything: str
    seconds: float = 0.0


@dataclass(frozen=True)
class Starter:
    """Starts the service in a folder of the test's own, on a port of its own."""

    directory: Path
    port: int
    capfd: pytest.CaptureFixture[str]

    def start(self, **args: Any) -> Ended:
        """Start the service in this process with these args, which must end before Ray starts."""
        config = self._write(args)
        started = time.monotonic()
        status = supervisor.serve(config)
        seconds = time.monotonic() - started
        said = self.capfd.readouterr()
        assert not ray.is_initialized()
        return _ended(status, said.out, said.err, seconds)

    def run_command(self, **args: Any) -> Ended:
        """Start the service with its command, and wait until that has ended."""
        command = [str(Path(sys.executable).with_name("wan-lora")), "serve", str(self._write(args))]
        done = subprocess.run(
            command, cwd=self.directory, capture_output=True, text=True, timeout=600, check=False, env=os.environ
        )
        return _ended(done.returncode, done.stdout, done.stderr)

    def _write(self, args: dict[str, Any]) -> Path:
        config = self.directory / "serve_config.json"
        application = {"name": "wan", "route_prefix": "/", "import_path": "serve_app:build", "args": args}
        http = {"host": "127.0.0.1", "port": self.port}
        config.write_text(json.dumps({"http_options": http, "applications": [application]}))
        return config


def _ended(status: int, out: str, err: str, seconds: float = 0.0) -> Ended:
    return Ended(status, err.strip().splitlines()[-1], out + err, seconds)


@pytest.fixture
def starter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Starter:
    monkeypatch.chdir(tmp_path)
    return Starter(tmp_path, free_port(), capfd)


@pytest.fixture
def checkpoint(demo_checkpoint: "DemoCheckpoint", tmp_path: Path) -> "DemoCheckpoint":
    """Return a copy of a whole checkpoint, to be damaged."""
    copy = replace(demo_checkpoint, base=tmp_path / "base", transformers=tmp_path / "transformers")
    shutil.copytree(demo_checkpoint.base, copy.base)
    shutil.copytree(demo_checkpoint.transformers, copy.transformers)
    return copy


def must_end(ended: Ended, *parts: str) -> None:
    assert ended.status == 1, ended.everything
    assert all(part in ended.last for part in parts), ended.last
    assert "Traceback" not in ended.everything
    assert ended.seconds < ENOUGH_S


def test_the_command_ends_with_a_status_and_a_last_line(starter: Starter) -> None:
    must_end(starter.run_command(profile="cpu", nonsense=1), "nonsense")


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        ({"nonsense": 1}, ("nonsense",)),
        ({"database_url": "mysql://user:hush-hush@host/name"}, ("database_url", "sqlite", "postgresql")),
        ({"output_url": "/proc/no/such/place"}, ("output_url",)),
    ],
    ids=["unknown", "database", "outputs"],
)
def test_a_wrong_arg_ends_the_start(starter: Starter, args: dict[str, Any], parts: tuple[str, ...]) -> None:
    must_end(starter.start(**{"profile": "cpu", **args}), *parts)


def test_a_database_server_that_is_down_ends_the_start_and_its_password_is_not_shown(starter: Starter) -> None:
    ended = starter.start(profile="cpu", database_url=f"postgresql://user:hush-hush@127.0.0.1:{free_port()}/name")
    must_end(ended, "database_url", "refused")
    assert "hush-hush" not in ended.everything


@pytest.fixture
def listener(starter: Starter) -> Iterator[socket.socket]:
    """Yield another program on the port, which shares it, as a second service would."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", starter.port))
        taken.listen()
        yield taken


def test_a_port_in_use_ends_the_start(starter: Starter, listener: socket.socket) -> None:
    must_end(starter.start(profile="cpu"), str(listener.getsockname()[1]), "another program listens")


def test_an_expert_that_is_cut_off_ends_the_start(starter: Starter, checkpoint: "DemoCheckpoint") -> None:
    weights = next((checkpoint.transformers / "transformer_2").glob("*.safetensors"))
    os.truncate(weights, weights.stat().st_size - 100)
    ended = starter.start(
        profile="cpu", base_model=str(checkpoint.base), transformer_model=str(checkpoint.transformers)
    )
    must_end(ended, "transformer_model", str(weights), "cut off")
