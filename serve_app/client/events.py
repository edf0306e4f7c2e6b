"""Events of a request (server-sent events), typed: each change of state, each step, previews, outputs, the end.

Example:
    for event in client.events(request_id):
        match event:
            case Step(progress=progress):
                print(f"{progress:.0%}")
            case Done(status=status):
                print(status.status)
"""

import base64
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import httpx2
from pydantic import ValidationError

from serve_app.api.schemas.answers import RequestStatus, Video
from serve_app.api.schemas.events import Preview, Step
from serve_app.client.calls import request_path
from serve_app.client.failures import Refusal
from serve_app.client.retries import Retries
from serve_app.errors import AnswerNotUnderstood, ServerUnreachable


@dataclass(frozen=True)
class StatusChanged:
    """The request's state, its place in the queue or its ETA is another."""

    status: RequestStatus


@dataclass(frozen=True)
class OutputReady:
    """A video is finished."""

    video: Video


@dataclass(frozen=True)
class Done:
    """The request has ended; no event follows."""

    status: RequestStatus


Event: TypeAlias = StatusChanged | Step | Preview | OutputReady | Done


def picture_of(preview: Preview) -> bytes:
    """Return the animated WebP of a preview."""
    return base64.b64decode(preview.image.partition(",")[2])


def as_json(event: Event) -> dict[str, object]:
    """Return an event with its name, as the service sends both."""
    match event:
        case StatusChanged(status):
            return {"event": "status", **status.model_dump(mode="json")}
        case OutputReady(video):
            return {"event": "output", **video.model_dump(mode="json")}
        case Done(status):
            return {"event": "done", **status.model_dump(mode="json")}
        case Step():
            return {"event": "step", **event.model_dump(mode="json")}
        case Preview():
            return {"event": "preview", **event.model_dump(mode="json")}


def event_of(sent: httpx2.ServerSentEvent) -> Event | None:
    """Return a typed event; None for a kind that this version does not know.

    Raises:
        AnswerNotUnderstood: its data has another form than its kind has.
    """
    read = _READERS.get(sent.event)
    if read is None:
        return None
    try:
        return read(sent.data)
    except ValidationError as error:
        raise AnswerNotUnderstood(
            f"an event '{sent.event}' is not as expected; is the service of the same version?",
            {"event": sent.event, "problem": error.errors(include_url=False)[0]["msg"]},
        ) from None


_READERS: Mapping[str, Callable[[str], Event]] = {
    "status": lambda data: StatusChanged(RequestStatus.model_validate_json(data)),
    "step": Step.model_validate_json,
    "preview": Preview.model_validate_json,
    "output": lambda data: OutputReady(Video.model_validate_json(data)),
    "done": lambda data: Done(RequestStatus.model_validate_json(data)),
}


class Listening:
    """One listener: the last event that arrived, from which a new connection goes on."""

    def __init__(self, request_id: str, retries: Retries) -> None:
        self.path = f"{request_path(request_id)}/events"
        self.retries = retries
        self.done = False
        self._last_id = ""

    def headers(self) -> dict[str, str]:
        """Return the headers of the next connection."""
        return {"Last-Event-ID": self._last_id} if self._last_id else {}

    def take(self, sent: httpx2.ServerSentEvent) -> Iterator[Event]:
        """Note that an event arrived, and yield it if its kind is known."""
        self.retries.progress()
        self._last_id = sent.id or self._last_id
        event = event_of(sent)
        if event is not None:
            self.done = isinstance(event, Done)
            yield event

    def cut_off(self) -> Refusal:
        """Return what a stream stands for that ended before the request did."""
        return Refusal(ServerUnreachable(f"{self.path} ended before the request did, again and again"), temporary=True)
