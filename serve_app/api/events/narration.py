"""Narration: compute the events (SSE) that a listener has not received yet, from its last event id and the request.

Example:
    narration = Narration.resumed(headers.get("Last-Event-ID"))
    for event in narration.tell(snapshot, video):
        yield event  # bytes, as they go over the wire
    narration.over  # nothing follows

An event id is the state of the listener, not a position in a log: a number in hex with a bit for each output that the
listener has received. So any process can continue an interrupted stream, nothing is stored for listeners that never
return, and no listener misses an output or the end.
"""

import base64
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Self

from fastapi.sse import format_sse_event

from serve_app.api.events.hub import Snapshot
from serve_app.api.schemas.answers import RequestStatus, Video
from serve_app.api.schemas.events import EventName, Preview, Step
from serve_app.errors import HeaderInvalid
from serve_app.jobs.records import Output, RenderRecord, RequestRecord
from serve_app.jobs.records import Preview as StoredPreview
from serve_app.jobs.states import FINAL, RenderState
from serve_app.models import limits

DescribeVideo = Callable[[RequestRecord, int, Output], Video]
"""Makes what clients see of one output of a request."""

LAST_EVENT_ID = "Last-Event-ID"
HEARTBEAT = format_sse_event(comment="alive")
RETRY_MS = 1000  # after which a browser connects again
ID_PATTERN = rf"^([0-9a-f]{{1,{limits.PROMPTS.most // 4}}}(\.end)?)?$"  # an empty one is none
_ID = re.compile(ID_PATTERN)
_END = ".end"


class Narration:
    """The events that one listener has received of one request."""

    def __init__(self, told: int = 0, *, over: bool = False) -> None:
        """Take `told`, a bit for each output that the listener has received."""
        self._told = told
        self._retry_ms: int | None = RETRY_MS
        self._status: RequestStatus | None = None
        self._steps: dict[int, tuple[int, int]] = {}  # by index: attempt and step
        self._previews: dict[int, int] = {}  # by index: step
        self.over = over

    @classmethod
    def resumed(cls, last_event_id: str | None) -> Self:
        """Go on behind the event with that id; from the beginning if there is none.

        Raises:
            HeaderInvalid: no event of a request has such an id.
        """
        if not last_event_id:
            return cls()
        if not _ID.fullmatch(last_event_id):
            raise HeaderInvalid(
                f"{LAST_EVENT_ID} is none of the ids that events of a request have; leave it out to hear all again",
                {"header": LAST_EVENT_ID},
            )
        return cls(int(last_event_id.removesuffix(_END), 16), over=last_event_id.endswith(_END))

    def tell(self, snapshot: Snapshot, video: DescribeVideo) -> Iterator[bytes]:
        """Yield the events from the listener's state to this snapshot; `video` describes an output."""
        status, last = snapshot.status, self._status
        final = snapshot.record.state in FINAL
        if not final and (last is None or _news_of(status) != _news_of(last)):
            yield self._event("status", snapshot.json("status", lambda: status))
        self._status = status
        yield from self._told_steps(snapshot)
        for render in snapshot.record.renders:
            if render.output is not None and not self._told >> render.index & 1:
                self._told |= 1 << render.index
                # Its address is this listener's own.
                yield self._event("output", video(snapshot.record, render.index, render.output).model_dump_json())
        if final:
            self.over = True
            yield self._event("done", snapshot.json("status", lambda: status))

    def _told_steps(self, snapshot: Snapshot) -> Iterator[bytes]:
        for render in snapshot.record.renders:
            now = (render.attempt, render.steps_done)
            if render.state is RenderState.PROCESSING and render.steps_done and self._steps.get(render.index) != now:
                self._steps[render.index] = now
                document = snapshot.json(f"step {render.index}", partial(_step, render, snapshot.status))
                yield self._event("step", document)
        for index, preview in snapshot.previews.items():
            if self._previews.get(index) != preview.step:
                self._previews[index] = preview.step
                yield self._event("preview", snapshot.json(f"preview {index}", partial(_preview, index, preview)))

    def _event(self, name: EventName, document: str) -> bytes:
        event_id = f"{self._told:x}{_END if self.over else ''}"
        retry, self._retry_ms = self._retry_ms, None  # once is enough
        return format_sse_event(data_str=document, event=name, id=event_id, retry=retry)


def _step(render: RenderRecord, status: RequestStatus) -> Step:
    return Step(
        index=render.index,
        step=render.steps_done,
        steps=render.spec.sample_steps,
        progress=status.progress,
        eta_seconds=status.eta_seconds,
    )


def _preview(index: int, preview: StoredPreview) -> Preview:
    image = f"data:image/webp;base64,{base64.b64encode(preview.image).decode()}"
    return Preview(index=index, step=preview.step, image=image)


def _news_of(status: RequestStatus) -> RequestStatus:
    """Return the part of a status whose changes have their own event; progress is part of the step events."""
    if status.status == "in_progress":
        return status.model_copy(update={"progress": 0.0, "eta_seconds": None})
    return status
