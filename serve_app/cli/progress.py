"""Live progress of requests: a bar each in a terminal (rich), a line for each change of state elsewhere."""

from types import TracebackType
from typing import Self

from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn

from serve_app.api.schemas.answers import RequestStatus
from serve_app.cli.console import say, stderr
from serve_app.client import Done, Event, StatusChanged, Step
from serve_app.client.waiting import ENDED

_MINUTE, _HOUR = 60, 3600


class Bars:
    """Shows how far requests are, on stderr. Use it in a `with` block."""

    def __init__(self) -> None:
        console = stderr()
        self._live = console.is_terminal
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
        )

    def __enter__(self) -> Self:
        if self._live:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._progress.stop()

    def add(self, name: str) -> "Bar":
        """Return a new bar."""
        return Bar(self._progress, self._live, name)


class Bar:
    """One request's bar."""

    def __init__(self, progress: Progress, live: bool, name: str) -> None:
        self._progress = progress
        self._live = live
        self._name = name
        self._state = ""
        self._task: TaskID = progress.add_task(escape(name), total=1.0, note="")

    def show(self, event: Event) -> None:
        """Show what happened."""
        if isinstance(event, StatusChanged | Done):
            self.status(event.status)
        elif isinstance(event, Step):
            note = f"step {event.step} of {event.steps}{_rest(event.eta_seconds)}"
            self._progress.update(self._task, completed=event.progress, note=note)

    def status(self, status: RequestStatus) -> None:
        """Show where the request is."""
        self._progress.update(self._task, completed=status.progress, note=note_of(status))
        if not self._live and status.status != self._state:
            say(f"{self._name}: {note_of(status)}")
        self._state = status.status


def note_of(status: RequestStatus) -> str:
    """Return where a request is, in words."""
    if status.status == "in_queue":
        ahead = status.queue_position or 0
        place = "next in the queue" if ahead == 0 else f"{ahead} before it in the queue"
        return f"{place}{_rest(status.eta_seconds)}"
    if status.status in ENDED:
        return status.status
    return f"rendering{_rest(status.eta_seconds)}"


def _rest(seconds: float | None) -> str:
    return "" if seconds is None else f", {duration(seconds)} left"


def duration(seconds: float) -> str:
    """Return seconds as people say them: under a second, 45 s, 3 min, 2 h 05 min."""
    if round(seconds) < 1:
        return "under a second"
    if seconds < 2 * _MINUTE:
        return f"{seconds:.0f} s"
    minutes = round(seconds / _MINUTE)
    return f"{minutes} min" if seconds < 2 * _HOUR else f"{minutes // _MINUTE} h {minutes % _MINUTE:02d} min"
