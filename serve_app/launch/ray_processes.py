"""Liveness of Ray's own processes (raylet, GCS) that this process has started: without one of them, nothing is served.

Ray's node ends itself if the GCS does not answer it for a minute, as on a machine without CPU time to spare, and Linux
may end either of them if memory runs out. `serve run` would sleep on, while nobody answers at its address. Or worse:
without the raylet, the proxy and the replicas live on for seconds, and would answer in the place of the next start.

Example:
    adopt_orphans()  # before `ray.init`
    own = RayProcesses.of_this_process()  # after it
    name = own.gone()  # "raylet", or None
"""

import ctypes
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic, sleep

import psutil

_NEEDED = ("gcs_server", "raylet")
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_REAP_EVERY_S = 10.0
_PATIENCE_S = 10.0
_POLL_S = 0.05


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends (Linux only).

    Ray's workers are children of the raylet. Once it is dead, nothing else would tell which processes were its own.

    Raises:
        OSError: Linux refuses it.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"prctl(PR_SET_CHILD_SUBREAPER): {os.strerror(number)}")


class RayProcesses:
    """The processes without which Ray's node on this machine is dead; none where this process has joined a cluster."""

    def __init__(self, children: Sequence[tuple[str, psutil.Process]]) -> None:
        """Take the names and processes of this process' own children."""
        self._needed = [(name, child) for name, child in children if name in _NEEDED]
        self._own = {child.pid for _, child in children}
        self._reap_at = 0.0

    @classmethod
    def of_this_process(cls) -> "RayProcesses":
        """Return those that this process has started."""
        return cls([(child.name(), child) for child in psutil.Process().children()])

    def gone(self) -> str | None:
        """Return the name of one that has ended; None while all run."""
        if self._needed and monotonic() >= self._reap_at:
            self._reap()
            self._reap_at = monotonic() + _REAP_EVERY_S
        return next((name for name, process in self._needed if _ended(process)), None)

    def kill(self) -> None:
        """End everything that this process and they have started, so that the address is free for the next start."""
        deadline = monotonic() + _PATIENCE_S
        while self._needed and (left := _running()) and monotonic() < deadline:
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            sleep(_POLL_S)

    def _reap(self) -> None:
        """Take note of the end of orphans, which otherwise stay in the kernel's table as zombies."""
        for child in psutil.Process().children():
            if child.pid not in self._own and _ended(child):
                with suppress(ChildProcessError):
                    os.waitpid(child.pid, os.WNOHANG)


def _running() -> list[psutil.Process]:
    return [process for process in psutil.Process().children(recursive=True) if not _ended(process)]


def _ended(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
