"""A real Redis server on loopback (Debian's package), which keeps Ray's own state where the head may die."""

import shutil
import socket
import subprocess
import time
from pathlib import Path

from tests.service_process import free_port

_STARTUP_S = 60


class RedisServer:
    """One server, with its files under `directory`. Nothing is on the disk: it outlives what is killed here."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Return its host and port."""
        return f"127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it, and wait until it listens."""
        program = shutil.which("redis-server")
        if program is None:
            raise FileNotFoundError("redis-server is not installed (Debian: apt-get install redis-server)")
        self._directory.mkdir(parents=True, exist_ok=True)
        options = ["--bind", "127.0.0.1", "--port", str(self._port), "--save", "", "--dir", str(self._directory)]
        with (self._directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [program, *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + _STARTUP_S
        while not self._listens():
            assert time.monotonic() < deadline, (self._directory / "server.log").read_text()
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop it."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(_STARTUP_S)
            self._process = None

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0
