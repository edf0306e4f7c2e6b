"""Starts that must not succeed: a fault that only a replica meets, and a service for others that has no key."""

import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil

from tests.lantern import CARD, ENVIRONMENT
from tests.service_process import STARTUP_S, ServiceProcess

# Another way to write 127.0.0.1, which this service takes for the name of any interface: so `serve run`, which listens
# before it builds the application, can be tried without listening for other machines.
ANY_INTERFACE = "127.1"


def test_a_fault_that_only_a_replica_meets_ends_the_start_at_the_first_try(tmp_path: Path) -> None:
    # Whole for whoever looks at its files, and yet nobody can make a pipeline of it.
    card = tmp_path / "card.yaml"
    card.write_text(CARD.read_text().replace("tests.lantern.pipeline:LanternPipeline", "tests.lantern.gone:Gone"))
    service = ServiceProcess(tmp_path, ENVIRONMENT, model=str(card))
    service.launch()
    try:
        assert service.ended(STARTUP_S) == 1
    finally:
        service.kill()
    assert "could not start: pipeline: cannot import 'tests.lantern.gone:Gone'" in service.said()[-1]
    log = service.log.read_text()
    assert log.strip().splitlines()[-1] == service.said()[-1]
    assert "AttributeError" not in log


def test_wan_lora_serve_does_not_listen_for_others_without_a_key(tmp_path: Path) -> None:
    service = ServiceProcess(tmp_path)
    service.host = "0.0.0.0"  # noqa: S104 - never bound: it is refused before
    service.launch()
    try:
        assert service.ended(STARTUP_S) == 1
    finally:
        service.kill()
    assert "at 0.0.0.0 other machines can call this service, and it has no API key" in service.said()[-1]
    assert service.log.read_text().splitlines() == service.said()  # Ray, which says much, was never started


def test_serve_run_builds_no_application_for_others_without_a_key(tmp_path: Path) -> None:
    service = ServiceProcess(tmp_path, model=str(CARD))
    service.host = ANY_INTERFACE
    config = service.write_config()
    log = tmp_path / "serve_run.log"
    command = [str(Path(sys.executable).with_name("serve")), "run", str(config)]
    with (
        log.open("wb") as said,
        subprocess.Popen(
            command,
            cwd=tmp_path,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **ENVIRONMENT},
        ) as process,
    ):
        try:
            wait_for("it has no API key", log, process)
            assert httpx.get(f"{service.url}/health", timeout=10).status_code != httpx.codes.OK
        finally:
            end(process)


def wait_for(text: str, log: Path, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + STARTUP_S
    while text not in log.read_text():
        assert process.poll() is None, log.read_text()[-2000:]
        assert time.monotonic() < deadline, log.read_text()[-2000:]
        time.sleep(0.2)


def end(process: "subprocess.Popen[bytes]") -> None:
    """Kill `serve run`, and the cluster that it has started."""
    alive = process.poll() is None
    started = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)] if alive else []
    for each in started:
        if each.is_running():
            each.kill()
    psutil.wait_procs(started, timeout=5)  # orphans may stay zombies
