"""`GET /v1/requests/{id}/events`: the life of a request as server-sent events, until its end.

The stream ends with the request. A client whose connection is lost connects again, to this process or another one, with
the id of the last event in the header `Last-Event-ID`. Browsers do this automatically.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from serve_app.api.answers import video_answer
from serve_app.api.dependencies import SenderDep, ServicesDep, fetcher_of
from serve_app.api.events.dependencies import ListeningDep
from serve_app.api.events.hub import Watch
from serve_app.api.events.narration import HEARTBEAT, ID_PATTERN, LAST_EVENT_ID, DescribeVideo, Narration
from serve_app.api.links import OutputLinksDep
from serve_app.api.requests import RequestId, known_form
from serve_app.api.schemas.errors import NO_SUCH_REQUEST, UNAVAILABLE, WRONG_HEADER, refusal
from serve_app.api.schemas.events import SentEvent

HEARTBEAT_S = 15.0  # proxies close connections on which nothing comes for a minute


class EventStream(StreamingResponse):
    """Releases its resources at its end, even if the client disconnects before the first event."""

    media_type = "text/event-stream"

    def __init__(self, content: AsyncIterator[bytes], held: AsyncExitStack) -> None:
        # The second header has nginx pass each event on as it comes.
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(content, headers=headers)
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        async with self._held:
            await super().__call__(scope, receive, send)


router = APIRouter(tags=["requests"], responses=UNAVAILABLE | WRONG_HEADER)


LastEventIdDep = Annotated[
    str | None,
    Header(
        alias=LAST_EVENT_ID,
        json_schema_extra={"pattern": ID_PATTERN},
        description="The `id` of the last event that was heard: go on behind it.",
    ),
]


@router.get(
    "/v1/requests/{request_id}/events",
    response_class=Response,  # which leaves the media type of each answer to `responses`
    responses={
        200: {
            "content": {EventStream.media_type: {"schema": SentEvent.model_json_schema()}},
            "description": (
                "Events named `status` and `done` (a RequestStatus), `step` (a Step), `preview` (a Preview) and "
                "`output` (a Video), with JSON as their data; comments as heartbeats. After `done` the stream ends."
            ),
        },
        204: {"description": "Last-Event-ID is that of `done`: nothing follows, and browsers connect no more."},
        **NO_SUCH_REQUEST,
        **refusal(429, "As many streams are open as one sender may have; Retry-After says when to try again."),
        **refusal(503, "As many streams are open as the process serves, or the job store does not answer."),
    },
)
async def events(
    request_id: RequestId,
    request: Request,
    *,
    services: ServicesDep,
    sender: SenderDep,
    listening: ListeningDep,
    links: OutputLinksDep,
    last_event_id: LastEventIdDep = None,
) -> Response:
    """Stream the request's state, steps, previews and outputs as they come."""
    narration = Narration.resumed(last_event_id)
    async with AsyncExitStack() as stack:
        stack.enter_context(listening.listeners.place(fetcher_of(request, sender), services.plan.settings))
        watch = await stack.enter_async_context(listening.hub.watching(known_form(request_id), owner=sender.owner))
        if narration.over:
            return Response(status_code=204)
        if request.method == "HEAD":
            return EventStream(_nothing(), AsyncExitStack())
        held = stack.pop_all()
    return EventStream(_told(watch, narration, partial(video_answer, links=links, services=services)), held)


async def _told(watch: Watch, narration: Narration, video: DescribeVideo) -> AsyncIterator[bytes]:
    while (snapshot := watch.snapshot) is not None:
        if told := b"".join(narration.tell(snapshot, video)):
            yield told
        if narration.over:
            return
        while not await watch.changed(HEARTBEAT_S):
            yield HEARTBEAT


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""
