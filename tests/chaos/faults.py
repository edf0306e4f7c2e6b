"""What is done to the service, one after another, each by process id."""

import logging
import time
from collections.abc import Callable, Iterator
from functools import partial

import psutil

from tests.postgres_server import PostgresServer
from tests.service_process import ServiceProcess

logger = logging.getLogger("chaos")

DATABASE_AWAY_S = 3.0
_MODELS = ("wan22_14b_t2v", "lantern_1b")
_APPEARS_WITHIN_S = 60.0


class Faults:
    """Everything that can be done to one service and its database."""

    def __init__(self, service: ServiceProcess, database: PostgresServer, rendering: Callable[[], bool]) -> None:
        """Take the service, its database, and `rendering`, which says whether a render is running."""
        self._service = service
        self._database = database
        self._rendering = rendering

    def __iter__(self) -> Iterator[tuple[str, Callable[[], None]]]:
        """Yield each by name, in the order in which they are to happen."""
        yield "Generator, mid-render", self._kill_generator
        for model in _MODELS:
            yield f"Dispatcher of {model}", partial(self._kill_dispatcher, model)
        yield "Ingress", lambda: self._kill(self._replica("Ingress"))
        yield "Serve controller", lambda: self._kill(self._controller())
        yield "PostgreSQL", self._restart_database
        yield "the whole cluster", self._restart_cluster

    def _kill_generator(self) -> None:
        generator = self._replica(f"Generator-{_MODELS[0]}")
        _wait(self._rendering, "a render under way")
        self._kill(generator)

    def _kill_dispatcher(self, model: str) -> None:
        self._kill(self._replica(f"Dispatcher-{model}"))

    def _replica(self, deployment: str) -> psutil.Process:
        _wait(lambda: bool(self._service.replicas(deployment)), f"a replica of {deployment}")
        return self._service.replicas(deployment)[0]

    def _controller(self) -> psutil.Process:
        return next(process for process in self._service.processes() if "ServeController" in _command(process))

    @staticmethod
    def _kill(process: psutil.Process) -> None:
        logger.info("SIGKILL %d %s", process.pid, _command(process)[:60])
        process.kill()

    def _restart_database(self) -> None:
        self._database.kill()
        time.sleep(DATABASE_AWAY_S)
        self._database.start()

    def _restart_cluster(self) -> None:
        self._service.kill()
        self._service.start()


def _command(process: psutil.Process) -> str:
    return " ".join(process.cmdline())


def _wait(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _APPEARS_WITHIN_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not appear within {_APPEARS_WITHIN_S:.0f} s")
        time.sleep(0.02)
