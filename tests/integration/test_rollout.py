"""A new configuration is rolled out while renders are under way."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.client import Client, body
from tests.service_process import ServiceProcess

_OPEN = {"RAY_AUTH_MODE": "disabled"}  # else `serve deploy` needs the token of the cluster that `serve run` started
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
        environment = {**os.environ, **_OPEN}
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
def rolling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    service = ServiceProcess(tmp_path_factory.mktemp("rollout"), _OPEN, ingress_replicas=2)
    service.start()
    yield service
    service.stop()


def pids(service: ServiceProcess) -> set[int]:
    return {process.pid for name in ("Ingress", "Dispatcher", "Generator") for process in service.replicas(name)}


def test_a_rolling_update_of_every_deployment_loses_nothing(rolling: ServiceProcess) -> None:
    before = pids(rolling)
    with Client(rolling.url) as client:
        ids = [client.submit(body({"sample_steps": 100, "seed": seed})) for seed in range(8)]
        client.wait(ids[0], "in_progress", "succeeded")
        Rollouts(rolling).deploy(args={"max_queued": 500})
        assert not before & pids(rolling)
        for request_id in ids:
            assert client.wait(request_id)["status"] == "succeeded"
            (used,) = client.result(request_id)["metadata"]["prompts"]
            assert used["attempt"] == 1


def test_what_user_config_may_change_changes_in_place(rolling: ServiceProcess) -> None:
    before = pids(rolling)
    with Client(rolling.url) as client:
        running = client.submit(body({"sample_steps": 150}))
        Rollouts(rolling).deploy(
            Ingress={"max_queued": 1}, Dispatcher={"affinity_patience_s": 5}, Generator={"render_timeout_s": 600}
        )
        refused = client.http.post("/v1/inference", json=body({}, {}))
        assert refused.status_code == httpx.codes.TOO_MANY_REQUESTS
        assert refused.json()["detail"]["error"]["code"] == "QUEUE_FULL"
        assert client.wait(running)["status"] == "succeeded"
    assert pids(rolling) == before
