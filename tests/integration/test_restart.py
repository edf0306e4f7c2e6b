"""Restarts, rollouts and stops: nothing that was accepted is lost, whatever dies or is replaced."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import psutil
import pytest
from sqlalchemy import select

from serve_app.jobs.states import RenderState
from serve_app.jobs.tables import renders
from tests.client import Client, body
from tests.fixtures.store import connect
from tests.integration.listening import cut_off, events, first_output, outputs_and_end
from tests.service_process import OPEN_DASHBOARD, ServiceProcess, free_port

_ROLLED_OUT_S = 120


class Rollouts:
    """Deploys changed configurations onto a running service, as an operator does."""

    def __init__(self, service: ServiceProcess) -> None:
        self._service = service
        self._dashboard = service.dashboard

    def deploy(self, *, args: dict[str, Any] | None = None, **user_configs: dict[str, Any]) -> None:
        """`serve deploy` with other args, or other `user_config`s of deployments; returns once it is rolled out."""
        path = self._service.directory / "serve_config.json"
        config = json.loads(path.read_text())
        (application,) = config["applications"]
        application["args"] |= args or {}
        application["deployments"] = [{"name": name, "user_config": user} for name, user in user_configs.items()]
        path.write_text(json.dumps(config))
        serve = str(Path(sys.executable).with_name("serve"))
        environment = {**os.environ, **OPEN_DASHBOARD}
        command = [serve, "deploy", str(path), "--address", self._dashboard]
        subprocess.run(command, check=True, env=environment, cwd=self._service.directory, capture_output=True)
        self._wait_until_running()

    def _wait_until_running(self) -> None:
        deadline = time.monotonic() + _ROLLED_OUT_S
        time.sleep(1)  # the controller takes the new configuration up in its next round
        while self._status() != "RUNNING":
            assert time.monotonic() < deadline, self._status()
            time.sleep(0.2)

    def _status(self) -> str:
        answer = httpx.get(f"{self._dashboard}/api/serve/applications/").raise_for_status().json()
        status: str = answer["applications"]["wan"]["status"]
        return status


@pytest.fixture(scope="module")
def haproxy_place() -> Iterator[Path]:
    """Yield a folder with a short path, as sockets need it: Serve adds 75 characters, and 97 is the most."""
    with TemporaryDirectory(prefix="ha") as directory:
        yield Path(directory)


@pytest.fixture(scope="module")
def expendable(tmp_path_factory: pytest.TempPathFactory, haproxy_place: Path) -> Iterator[ServiceProcess]:
    """Yield a service that the tests of this module may kill and reconfigure; behind HAProxy from its second start."""
    service = ServiceProcess(tmp_path_factory.mktemp("expendable"), OPEN_DASHBOARD, ingress_replicas=2, lease_s=5)
    service.start()
    yield service
    service.kill()


def behind_haproxy(place: Path) -> dict[str, str]:
    """Return what has Serve use HAProxy, with files in `place` and ports that no other service of this machine has."""
    own = {
        "METRICS_PORT": free_port(),
        "STATS_PORT": free_port(),
        "SOCKET_PATH": place / "admin.sock",
        "CONFIG_FILE_LOC": place / "haproxy.cfg",
        "SERVER_STATE_BASE": place,
        "SERVER_STATE_FILE": place / "server-state",
    }
    named = {f"RAY_SERVE_HAPROXY_{name}": str(value) for name, value in own.items()}
    return {"RAY_SERVE_ENABLE_HA_PROXY": "1", **named}


def pids(service: ServiceProcess) -> set[int]:
    return {process.pid for name in ("Ingress", "Dispatcher", "Generator") for process in service.replicas(name)}


def test_a_render_whose_generator_is_killed_is_made_by_the_next_one(service: ServiceProcess, client: Client) -> None:
    request_id = client.submit(body({"sample_steps": 150, "output_format": "png"}))
    client.wait(request_id, "in_progress")
    (generator,) = service.replicas("Generator")
    generator.kill()
    assert client.wait(request_id)["status"] == "succeeded"
    (used,) = client.result(request_id)["metadata"]["prompts"]
    assert used["attempt"] == 2


def test_everything_accepted_survives_the_death_of_the_whole_cluster(
    expendable: ServiceProcess, haproxy_place: Path
) -> None:
    with Client(expendable.url) as client:
        ids = [client.submit(body({"sample_steps": 20}, {"seed": 7})) for _ in range(6)]
        heard = events(expendable, ids[0])
        last = first_output(heard)
        (raylet,) = [process for process in expendable.processes() if process.name() == "raylet"]
        raylet.kill()  # and with it every process of Ray's node
        cut_off(heard)
        assert expendable.ended() == 1
        assert "Ray's process raylet is gone" in expendable.said()[-1]
        expendable.environment |= behind_haproxy(haproxy_place)
        expendable.start()
        assert outputs_and_end(events(expendable, ids[0], last)) == [("output", 1), ("done", None)]
        for request_id in ids:
            assert client.wait(request_id)["status"] == "succeeded"
            assert len(client.result(request_id)["outputs"]["videos"]) == 2


def test_behind_haproxy_events_come_as_they_happen_and_continue_when_they_are_cut_off(
    expendable: ServiceProcess,
) -> None:
    with Client(expendable.url) as client:
        request_id = client.submit(body({"sample_steps": 150, "width": 128, "height": 128, "num_frames": 17}, {}))
        heard = events(expendable, request_id)
        next(event for event in heard if event.event == "step")
        assert client.status(request_id)["status"] == "in_progress"  # nobody holds events back until the end
        last = first_output(heard)
        heard.close()  # type: ignore[attr-defined]  # a generator
        assert outputs_and_end(events(expendable, request_id, last)) == [("output", 1), ("done", None)]


def test_a_rolling_update_of_every_deployment_loses_nothing(expendable: ServiceProcess) -> None:
    before = pids(expendable)
    with Client(expendable.url) as client:
        ids = [client.submit(body({"sample_steps": 100, "seed": seed})) for seed in range(8)]
        client.wait(ids[0], "in_progress", "succeeded")
        Rollouts(expendable).deploy(args={"max_queued": 500})
        assert not before & pids(expendable)
        for request_id in ids:
            assert client.wait(request_id)["status"] == "succeeded"
            (used,) = client.result(request_id)["metadata"]["prompts"]
            assert used["attempt"] == 1


def test_what_user_config_may_change_changes_in_place(expendable: ServiceProcess) -> None:
    before = pids(expendable)
    with Client(expendable.url) as client:
        running = client.submit(body({"sample_steps": 150}))
        Rollouts(expendable).deploy(
            Ingress={"max_queued": 1}, Dispatcher={"affinity_patience_s": 5}, Generator={"render_timeout_s": 600}
        )
        refused = client.http.post("/v1/inference", json=body({}, {}))
        assert refused.status_code == httpx.codes.TOO_MANY_REQUESTS
        assert refused.json()["detail"]["error"]["code"] == "QUEUE_FULL"
        assert client.wait(running)["status"] == "succeeded"
    assert pids(expendable) == before


def test_a_stop_says_what_it_waits_for_and_a_second_one_comes_at_once(expendable: ServiceProcess) -> None:
    """The last test of this module: its service is gone afterwards."""
    with Client(expendable.url) as client:
        request_id = client.submit(body({"sample_steps": 150, "width": 256, "height": 256, "num_frames": 41}))
        client.wait(request_id, "in_progress")
    _, *members = expendable.processes()
    expendable.send(signal.SIGTERM)
    expendable.wait_for("waiting for 1 running renders")
    assert "again" in expendable.said()[-1]
    expendable.send(signal.SIGINT)
    assert expendable.ended() == 130
    assert "at once" in expendable.said()[-1]
    _, left = psutil.wait_procs(members, timeout=10)
    assert not [process for process in left if process.status() != psutil.STATUS_ZOMBIE]
    with connect(f"sqlite:///{expendable.directory}/var/jobs.db") as connection:
        query = select(renders.c.state, renders.c.attempt).where(renders.c.request_id == request_id)
        state, attempt = connection.execute(query).one()
    # Its lease runs out, and the next start goes on with it, as after the death of the whole cluster.
    assert (state, attempt) == (RenderState.PROCESSING, 1)
