"""`wan-lora serve` on a real cluster: a fault that only a replica meets, and being stopped twice."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import select

from serve_app.jobs.states import RenderState
from serve_app.jobs.tables import renders
from tests.client import Client, body
from tests.fixtures.store import connect
from tests.serve_app.loras.files import CONFIG
from tests.service_process import free_port

STARTUP_S = 180


class Launched:
    """`wan-lora serve` in a process group of its own."""

    def __init__(self, directory: Path, **args: Any) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.log = directory / f"serve-{port}.log"
        config = directory / "serve_config.json"
        application = {"name": "wan", "route_prefix": "/", "import_path": "serve_app:build", "args": args}
        config.write_text(
            json.dumps({"http_options": {"host": "127.0.0.1", "port": port}, "applications": [application]})
        )
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [Path(sys.executable).with_name("wan-lora"), "serve", config],
                cwd=directory,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"},
            )

    def said(self) -> list[str]:
        """The lines that are for the person at the terminal."""
        return [line for line in self.log.read_text().splitlines() if line.startswith("==>")]

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + STARTUP_S
        while not any(text in line for line in self.said()):
            assert self.process.poll() is None, self.log.read_text()[-4000:]
            assert time.monotonic() < deadline, self.log.read_text()[-4000:]
            time.sleep(0.1)

    def kill(self) -> None:
        if self.process.poll() is None:
            processes = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
            for process in processes:
                if process.is_running():
                    process.kill()
            self.process.wait(30)


@pytest.fixture
def launched(tmp_path: Path) -> Iterator[Launched]:
    launched = Launched(tmp_path, profile="cpu")
    try:
        launched.wait_for("ready")
        yield launched
    finally:
        launched.kill()


def test_a_fault_that_only_a_replica_meets_ends_the_start(tmp_path: Path) -> None:
    # Whole for whoever looks at its files, and yet no pipeline can be made of it.
    for folder in ("base", "experts/transformer", "experts/transformer_2"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "base" / "model_index.json").write_text('{"_class_name": "WanPipeline"}')
    (tmp_path / "experts" / "transformer" / "config.json").write_text(json.dumps(CONFIG))
    launched = Launched(tmp_path, profile="cpu", base_model=f"{tmp_path}/base", transformer_model=f"{tmp_path}/experts")
    try:
        assert launched.process.wait(STARTUP_S) == 1
        assert "could not start" in launched.said()[-1], launched.said()
        assert launched.log.read_text().strip().splitlines()[-1] == launched.said()[-1]
        assert "AttributeError" not in launched.log.read_text()
    finally:
        launched.kill()


def test_a_stop_says_what_it_waits_for_and_a_second_one_comes_at_once(launched: Launched, tmp_path: Path) -> None:
    with Client(launched.url) as client:
        request_id = client.submit(body({"sample_steps": 150, "width": 256, "height": 256, "num_frames": 41}))
        client.wait(request_id, "in_progress")
    members = psutil.Process(launched.process.pid).children(recursive=True)
    launched.process.send_signal(signal.SIGTERM)
    launched.wait_for("waiting for 1 running renders")
    assert "again" in launched.said()[-1]
    launched.process.send_signal(signal.SIGINT)
    assert launched.process.wait(60) == 130
    assert "at once" in launched.said()[-1]
    _, left = psutil.wait_procs(members, timeout=10)
    assert not [process for process in left if process.status() != psutil.STATUS_ZOMBIE]
    with connect(f"sqlite:///{tmp_path}/var/jobs.db") as connection:
        state, attempt = connection.execute(select(renders.c.state, renders.c.attempt)).one()
    # Its lease runs out, and the next start goes on with it; see test_restart.py.
    assert (state, attempt) == (RenderState.PROCESSING, 1), request_id
