"""Sampling of a running service: memory and file descriptors of processes, and what lies in its store and folders."""

import os
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.service_process import ServiceProcess
from tests.soak.slopes import Sample, Trend, trend_of

_EVERY_S = 5.0
_TABLES = ("requests", "renders", "queue_totals", "webhook_deliveries", "previews", "request_tokens")


@dataclass(frozen=True, slots=True)
class ProcessTrend:
    """USS in bytes: memory that no other process shares."""

    name: str
    pid: int
    uss: Trend
    descriptors: Trend


@dataclass(frozen=True, slots=True)
class PlaceTrend:
    """Bytes of a folder or file, files of a folder, or rows of a table."""

    name: str
    trend: Trend


class Sampler:
    """Looks at one service now and then."""

    def __init__(self, service: ServiceProcess) -> None:
        self._service = service
        self._names: dict[int, str] = {}
        self._uss: defaultdict[int, list[Sample]] = defaultdict(list)
        self._descriptors: defaultdict[int, list[Sample]] = defaultdict(list)
        self._places: defaultdict[str, list[Sample]] = defaultdict(list)
        self._started = time.monotonic()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Take samples while the block runs."""
        over = threading.Event()
        thread = threading.Thread(target=self._run, args=[over], name="sampler")
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def processes(self, seconds: float) -> list[ProcessTrend]:
        """Return the trend of each process that lived long enough, the steepest first."""
        found = []
        for pid, name in self._names.items():
            uss, descriptors = trend_of(self._uss[pid], seconds), trend_of(self._descriptors[pid], seconds)
            if uss is not None and descriptors is not None:
                found.append(ProcessTrend(name, pid, uss, descriptors))
        return sorted(found, key=lambda process: -process.uss.hourly)

    def places(self, seconds: float) -> list[PlaceTrend]:
        """Return the trend of each place."""
        found = [(name, trend_of(samples, seconds)) for name, samples in self._places.items()]
        return [PlaceTrend(name, trend) for name, trend in found if trend is not None]

    def _run(self, over: threading.Event) -> None:
        while not over.wait(_EVERY_S):
            at = time.monotonic() - self._started
            for process in self._service.processes():
                self._look_at(process, at)
            for name, value in self._values():
                self._places[name].append(Sample(at, value))

    def _look_at(self, process: psutil.Process, at: float) -> None:
        try:
            uss, descriptors, name = process.memory_full_info().uss, process.num_fds(), _name(process)
        except psutil.NoSuchProcess:  # ffmpeg, say
            return
        self._names[process.pid] = name
        self._uss[process.pid].append(Sample(at, uss))
        self._descriptors[process.pid].append(Sample(at, descriptors))

    def _values(self) -> Iterator[tuple[str, float]]:
        state = self._service.directory / "var"
        outputs = _sizes(state / "outputs")
        yield "outputs, bytes", sum(outputs)
        yield "outputs, files", len(outputs)
        for name in ("jobs.db", "jobs.db-wal"):
            yield f"{name}, bytes", (state / name).stat().st_size
        yield "LoRA cache, bytes", sum(_sizes(state / "lora-cache"))
        with sqlite3.connect(f"file:{state / 'jobs.db'}?mode=ro", uri=True) as connection:
            for table in _TABLES:
                (count,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608 - names above
                yield f"{table}, rows", count
        connection.close()


def _sizes(folder: Path) -> list[int]:
    """Return the sizes of the files below a folder; one that is removed meanwhile is left out."""
    sizes = []
    for directory, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                sizes.append(Path(directory, name).stat().st_size)
    return sizes


def _name(process: psutil.Process) -> str:
    """Return what tells a process from the others of the service: the title of a replica, or the program."""
    command = process.cmdline()
    title = command[0] if command else process.name()
    if title.startswith("ray::"):
        return title.partition(".")[0]  # behind it is what the actor is doing now
    scripts = [Path(part).name for part in command if part.endswith(".py")]
    return scripts[0] if scripts else Path(title).name
