"""Liveness of Ray's own processes (raylet, GCS) that this process has started: without one of them, nothing is served.

Ray's node ends itself if the GCS does not answer it for a minute, as on a machine without CPU time to spare, and Linux
may end either of them if memory runs out. `serve run` would sleep on, while nobody answers at its address.

Example:
    own = RayProcesses.of_this_process()  # after `ray.init`
    name = own.gone()  # "raylet", or None
"""

from collections.abc import Sequence
from contextlib import suppress
from time import monotonic, sleep

import psutil

_NEEDED = ("gcs_server", "raylet")
_LOOK_EVERY_S = 10.0  # it costs milliseconds
_PATIENCE_S = 10.0
_POLL_S = 0.05


class RayProcesses:
    """The processes without which Ray's node on this machine is dead; none where this process has joined a cluster."""

    def __init__(self, processes: Sequence[tuple[str, psutil.Process]]) -> None:
        self._processes = processes
        self._others: list[psutil.Process] = []  # that these have started: of a dead one nobody can ask
        self._look_at = 0.0

    @classmethod
    def of_this_process(cls) -> "RayProcesses":
        """Return those that this process has started."""
        children = [(child.name(), child) for child in psutil.Process().children()]
        return cls([(name, child) for name, child in children if name in _NEEDED])

    def gone(self) -> str | None:
        """Return the name of one that has ended; None while all run."""
        if monotonic() >= self._look_at:
            self._others = _started() if self._processes else []
            self._look_at = monotonic() + _LOOK_EVERY_S
        return next((name for name, process in self._processes if _ended(process)), None)

    def kill(self) -> None:
        """End everything that this process and they have started, so that the address is free for the next start."""
        left = {*self._others, *_started()} if self._processes else set()
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        deadline = monotonic() + _PATIENCE_S
        while not all(_ended(process) for process in left) and monotonic() < deadline:
            sleep(_POLL_S)


def _started() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def _ended(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
