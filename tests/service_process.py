"""The service as `make run` runs it: `wan-lora serve` on a config file, in a process of its own, on loopback."""

import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar

import httpx
import psutil
import yaml

from serve_app.settings import DEFAULT_MODEL

STARTUP_S = 180
OPEN_DASHBOARD = {"RAY_AUTH_MODE": "disabled"}  # Ray's dashboard is there, and answers to everybody
_PORTS = (20_000, 32_000)  # below those that Linux gives to connections (ip_local_port_range)
_ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}


def free_port() -> int:
    """Return a TCP port that nothing listens on now, and that no connection is given before it is used."""
    while True:
        port = random.randrange(*_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class ServiceProcess:
    """One `wan-lora serve`, with its state (database, outputs, LoRAs, demo checkpoint) under `directory`.

    Its demo is the one with random weights, which renders many times faster than the trained one: tests of a service
    compare and count frames, and do not look at them.

    The first one of this process builds the demo checkpoint, as it does for a user; the others start with a copy of it,
    because building takes six seconds of CPU time.
    """

    _built: ClassVar[Path | None] = None  # the demo checkpoint that a service of this process has built

    def __init__(self, directory: Path, environment: Mapping[str, str] | None = None, **args: Any) -> None:
        self.directory = directory
        self.environment = dict(environment or {})  # of its next start
        self.port = free_port()
        self.host = "127.0.0.1"  # at which it listens
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = directory / "serve.log"
        self._own_model = bool(args.keys() & {"model", "models"})
        self._args = {
            "profile": "cpu",
            **({} if self._own_model else {"model": str(write_demo_card(directory))}),
            **args,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def write_config(self) -> Path:
        """Write what `wan-lora serve` or `serve run` reads."""
        config = self.directory / "serve_config.json"  # JSON is YAML
        config.write_text(json.dumps(self._config()))
        return config

    def launch(self) -> None:
        """Start it, and wait for nothing."""
        options = ["--dashboard"] if OPEN_DASHBOARD.items() <= self.environment.items() else []
        config = self.write_config()
        self._copy_demo()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [Path(sys.executable).with_name("wan-lora"), "serve", config, *options],
                cwd=self.directory,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **_ENVIRONMENT, **self.environment},
            )

    def start(self, within_s: float = STARTUP_S) -> float:
        """Start it and wait until it is healthy; returns the seconds that took."""
        started = time.monotonic()
        self.launch()
        while time.monotonic() - started < within_s:
            if self._process is None or self._process.poll() is not None:
                break
            if self._healthy():
                self._keep_demo()
                return time.monotonic() - started
            time.sleep(0.2)
        self.kill()
        raise RuntimeError(f"the service did not come up; its log:\n{self.log.read_text()[-4000:]}")

    @property
    def _demo(self) -> Path:
        return self.directory / "var" / "demo"

    def _keep_demo(self) -> None:
        if not self._own_model:  # another model's demo is another one
            ServiceProcess._built = self._demo

    def _copy_demo(self) -> None:
        built = None if self._own_model else self._built
        if built is not None and built.is_dir() and not self._demo.exists():
            shutil.copytree(built, self._demo)

    def replicas(self, deployment: str) -> list[psutil.Process]:
        """Return the processes of one deployment's replicas."""
        return [process for process in self.processes() if f":{deployment}" in _command_line(process)]

    @property
    def dashboard(self) -> str:
        """Address of Ray's dashboard, of a service with the environment OPEN_DASHBOARD."""
        deadline = time.monotonic() + STARTUP_S
        while not (found := re.findall(r"^ +Ray +(http://[\d.:]+)$", self.log.read_text(), re.MULTILINE)):
            assert time.monotonic() < deadline, self.log.read_text()[-4000:]
            time.sleep(0.1)
        address: str = found[-1]
        return address

    def processes(self) -> list[psutil.Process]:
        """`wan-lora serve` and everything it started: Ray's daemons, the replicas, the proxy."""
        if self._process is None or self._process.poll() is not None:
            return []
        root = psutil.Process(self._process.pid)
        return [root, *root.children(recursive=True)]

    def said(self) -> list[str]:
        """Return the lines that are for the person at the terminal."""
        return [line for line in self.log.read_text().splitlines() if line.startswith("==>")]

    def wait_for(self, text: str) -> None:
        """Wait until that is said."""
        deadline = time.monotonic() + STARTUP_S
        while not any(text in line for line in self.said()):
            assert time.monotonic() < deadline, self.log.read_text()[-4000:]
            time.sleep(0.1)

    def send(self, number: signal.Signals) -> None:
        """Send `wan-lora serve` a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def ended(self, within_s: float = 60) -> int:
        """Wait until `wan-lora serve` has ended; its exit status."""
        assert self._process is not None
        return self._process.wait(within_s)

    def kill(self) -> None:
        """End the whole cluster at once, as a power cut would."""
        processes = self.processes()
        for process in processes:
            if process.is_running():
                process.kill()
        psutil.wait_procs(processes, timeout=5)  # orphans may stay zombies forever
        if self._process is not None:
            self._process.wait(30)

    def stop(self) -> None:
        """Stop it as Ctrl-C does, which must end well."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                status = self._process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
            assert status == 0, self.log.read_text()[-4000:]

    def _config(self) -> dict[str, Any]:
        application = {"name": "wan", "route_prefix": "/", "import_path": "serve_app:build", "args": self._args}
        return {"http_options": {"host": self.host, "port": self.port}, "applications": [application]}

    def _healthy(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=2).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False


def write_demo_card(directory: Path) -> Path:
    """Write the product's card with the demo of random weights."""
    card = yaml.safe_load((resources.files("configs") / "models" / f"{DEFAULT_MODEL}.yaml").read_text())
    path = directory / "card.yaml"
    path.write_text(yaml.safe_dump(card | {"demo": "deployments.wan.demo.untrained:build_demo", "demo_draft": None}))
    return path


def _command_line(process: psutil.Process) -> str:
    """Return the command line of a process; empty once it has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""
