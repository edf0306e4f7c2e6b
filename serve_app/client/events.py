"""Events of a request (server-sent events), typed: each change of state, each step, previews, outputs, the end.

for event in client.events(request_id):
    match event:
        case Step(progress=progress):
            print(f"{progress:.0%}")
        case Done(status=status):
            print(status.status)
"""

import base64
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar, TypeAlias

import httpx2
from pydantic import BaseModel, ValidationError

from serve_app.api.schemas.answers import RequestStatus, Video
from serve_app.client.calls import request_path
from serve_app.client.failures import Refusal
from serve_app.client.patience import Patience
from serve_app.errors import AnswerNotUnderstood, ServerUnreachable


class StatusChanged(BaseModel):
    """The request's state, its place in the queue or its ETA is another."""

    kind: ClassVar[str] = "status"
    status: RequestStatus


class Step(BaseModel):
    """A denoising step of one prompt is done."""

    kind: ClassVar[str] = "step"
    index: int
    step: int
    steps: int
    progress: float
    eta_seconds: float | None = None


class Preview(BaseModel):
    """How a prompt's video looks so far; only where the request asked for previews."""

    kind: ClassVar[str] = "preview"
    index: int
    step: int
    image: str

    @property
    def content(self) -> bytes:
        """Return the animated WebP."""
        return base64.b64decode(self.image.partition(",")[2])


class OutputReady(BaseModel):
    """A video is finished."""

    kind: ClassVar[str] = "output"
    video: Video


class Done(BaseModel):
    """The request has ended; no event follows."""

    kind: ClassVar[str] = "done"
    status: RequestStatus


Event: TypeAlias = StatusChanged | Step | Preview | OutputReady | Done


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
    StatusChanged.kind: lambda data: StatusChanged(status=RequestStatus.model_validate_json(data)),
    Step.kind: Step.model_validate_json,
    Preview.kind: Preview.model_validate_json,
    OutputReady.kind: lambda data: OutputReady(video=Video.model_validate_json(data)),
    Done.kind: lambda data: Done(status=RequestStatus.model_validate_json(data)),
}


class Listening:
    """One listener: the last event that arrived, from which a new connection goes on."""

    def __init__(self, request_id: str, patience: Patience) -> None:
        self.path = f"{request_path(request_id)}/events"
        self.patience = patience
        self.done = False
        self._last_id = ""

    def headers(self) -> dict[str, str]:
        """Return the headers of the next connection."""
        return {"Last-Event-ID": self._last_id} if self._last_id else {}

    def take(self, sent: httpx2.ServerSentEvent) -> Iterator[Event]:
        """Note that an event arrived, and yield it if its kind is known."""
        self.patience.progress()
        self._last_id = sent.id or self._last_id
        event = event_of(sent)
        if event is not None:
            self.done = isinstance(event, Done)
            yield event

    def cut_off(self) -> Refusal:
        """Return what a stream stands for that ended before the request did."""
        return Refusal(ServerUnreachable(f"{self.path} ended before the request did, again and again"), temporary=True)
