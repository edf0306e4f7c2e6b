"""A Ray cluster of several nodes on one machine: each a raylet of its own, with an address of its own on loopback.

Example:
    cluster = RayCluster(directory, redis.address, environment)
    cluster.start("head", cpus=0)
    cluster.start("gpu-1", cpus=2, gpus=1)
    cluster.nodes["gpu-1"].kill()
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.service_process import free_port

_PROGRAMS = Path(sys.executable).parent
_WITHIN_S = 240
# A node that says nothing is taken for dead after so long; Ray's defaults are five times longer.
_HEALTH = {
    "RAY_health_check_initial_delay_ms": "5000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "5",
}
_ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "RAY_enable_worker_prestart": "0",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "600",  # for the head to come back, as KubeRay sets it
    "RAY_SERVE_COLLECT_AUTOSCALING_METRICS_ON_HANDLE": "0",
    **_HEALTH,
}
_OBJECT_STORE = 80_000_000  # bytes; Ray's least is 75 MB


class RayNode:
    """One node: `ray start --block`, and everything that it starts."""

    def __init__(self, command: list[str], environment: Mapping[str, str], log: Path, address: str) -> None:
        self._command = command
        self._environment = dict(environment)
        self._log = log
        self.address = address  # its IP address, by which Serve calls it
        self._starts = 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait for nothing. Started again, it finds nothing of what it left, as on a new machine."""
        self._starts += 1
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._command, f"--temp-dir={self._log.parent / str(self._starts)}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._log.parent,
                env=self._environment,
                start_new_session=True,
            )

    def processes(self) -> list[psutil.Process]:
        """Return every process of the node; the one that starts the others first."""
        if self._process is None or self._process.poll() is not None:
            return []
        root = psutil.Process(self._process.pid)
        return [root, *root.children(recursive=True)]

    def kill(self) -> None:
        """End all its processes at once, as a power cut would."""
        found = self.processes()
        for process in found:  # so that none starts another one meanwhile
            _tell(process.suspend)
        found = [*found, *(process for process in self.processes() if process not in found)]
        for process in found:
            _tell(process.kill)
        psutil.wait_procs(found, timeout=10)  # orphans may stay zombies for ever
        if self._process is not None:
            self._process.wait(30)

    def log(self) -> str:
        """Return what `ray start` said."""
        return self._log.read_text()


class RayCluster:
    """Nodes that join one head, whose state is in Redis."""

    def __init__(self, directory: Path, redis: str, environment: Mapping[str, str]) -> None:
        """`environment` is for every process of every node; `directory` must have a short path (Unix sockets)."""
        self._directory = directory
        self._environment = {
            **os.environ,
            **_ENVIRONMENT,
            **environment,
            "RAY_REDIS_ADDRESS": redis,
            "RAY_external_storage_namespace": directory.name,
        }
        self._gcs_port, self._dashboard_port, self._client_port = free_port(), free_port(), free_port()
        self.http_port = free_port()  # of the head's proxy
        self.nodes: dict[str, RayNode] = {}

    @property
    def dashboard(self) -> str:
        """Return the address of the head's dashboard."""
        return f"http://127.0.0.1:{self._dashboard_port}"

    def start(self, name: str, *, cpus: int, gpus: int = 0, **resources: float) -> int:
        """Start a node, the head first; return the port of its proxy. The GPUs are in Ray's books only."""
        address = f"127.0.0.{11 + len(self.nodes)}"
        port = free_port() if self.nodes else self.http_port
        counts = [f"--num-cpus={cpus}", f"--num-gpus={gpus}", f"--resources={json.dumps(resources)}"]
        where = self._of_head() if not self.nodes else [f"--address={self._head_address}:{self._gcs_port}"]
        directory = self._directory / name
        directory.mkdir()
        command = [
            str(_PROGRAMS / "ray"),
            "start",
            "--block",
            *where,
            *counts,
            f"--node-ip-address={address}",
            f"--object-store-memory={_OBJECT_STORE}",
            f"--dashboard-agent-listen-port={free_port()}",
            "--min-worker-port=0",
            "--max-worker-port=0",
            "--include-log-monitor=false",
        ]
        environment = {**self._environment, "RAY_SERVE_WORKER_PROXY_HTTP_PORT": str(port)}
        node = RayNode(command, environment, directory / "start.log", address)
        node.start()
        self.nodes[name] = node
        return port

    def wait_for_nodes(self, count: int) -> None:
        """Wait until so many nodes are alive, as the head sees it."""
        deadline = time.monotonic() + _WITHIN_S
        while len(self._alive()) != count:
            assert time.monotonic() < deadline, "\n".join(node.log() for node in self.nodes.values())
            time.sleep(0.2)

    def drain(self, name: str, deadline_s: int) -> None:
        """Have Ray give a node no more work, as the `preStop` hook of a pod does; it is to go by the deadline."""
        (node_id,) = [node["node_id"] for node in self._alive() if node["node_ip"] == self.nodes[name].address]
        command = [
            str(_PROGRAMS / "ray"),
            "drain-node",
            f"--address={self._head_address}:{self._gcs_port}",
            f"--node-id={node_id}",
            "--reason=DRAIN_NODE_REASON_PREEMPTION",
            "--reason-message=the pod is deleted",
            f"--deadline-remaining-seconds={deadline_s}",
        ]
        subprocess.run(command, env=self._environment, check=True)

    def deploy(self, config: Mapping[str, Any]) -> None:
        """Deploy, as `serve deploy` does; return at once."""
        answer = httpx.put(f"{self.dashboard}/api/serve/applications/", json=config, timeout=60)
        answer.raise_for_status()

    def application(self) -> dict[str, Any]:
        """Return what Serve says of its one application; empty while it says nothing."""
        try:
            answer = httpx.get(f"{self.dashboard}/api/serve/applications/", timeout=30).raise_for_status().json()
        except httpx.HTTPError:
            return {}
        applications: dict[str, dict[str, Any]] = answer["applications"]
        return next(iter(applications.values()), {})

    def replicas(self, deployment: str) -> list[dict[str, Any]]:
        """Return the replicas of one deployment that run."""
        found = self.application().get("deployments", {}).get(deployment, {}).get("replicas", [])
        return [replica for replica in found if replica["state"] == "RUNNING"]

    def kill(self) -> None:
        """End all nodes at once."""
        for node in self.nodes.values():
            node.kill()

    @property
    def _head_address(self) -> str:
        return next(iter(self.nodes.values())).address

    def _of_head(self) -> list[str]:
        return [
            "--head",
            f"--port={self._gcs_port}",
            f"--ray-client-server-port={self._client_port}",
            "--dashboard-host=127.0.0.1",
            f"--dashboard-port={self._dashboard_port}",
        ]

    def _alive(self) -> list[dict[str, Any]]:
        try:
            answer = httpx.get(f"{self.dashboard}/api/v0/nodes", timeout=30).raise_for_status().json()
        except httpx.HTTPError:
            return []
        nodes: list[dict[str, Any]] = answer["data"]["result"]["result"]
        return [node for node in nodes if node["state"] == "ALIVE"]


def _tell(signal: Any) -> None:
    """Send a signal to a process that may have ended."""
    try:
        signal()
    except psutil.NoSuchProcess:
        return
