"""Faults between client and service: answers that are lost after the work was done (ASGI middleware)."""

from collections.abc import Callable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class LosesAnswers:
    """Lets the application do its work, and breaks the connection instead of answering, so many times."""

    def __init__(self, app: ASGIApp, times: int, of: Callable[[Scope], bool] = lambda _scope: True) -> None:
        self._app = app
        self._left = times
        self._of = of
        self.lost: list[Any] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._left and self._of(scope):
            self._left -= 1
            self.lost.append(scope["path"])
            await self._app(scope, receive, _nowhere)
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"100")]})
            await send({"type": "http.response.body", "body": b"{", "more_body": False})
        else:
            await self._app(scope, receive, send)


async def _nowhere(_message: Message) -> None:
    """Throw the answer away."""


class CutsStreams:
    """Breaks the connection of a stream behind so many of its pieces, so many times."""

    def __init__(self, app: ASGIApp, *, pieces: int, times: int) -> None:
        self._app = app
        self._pieces = pieces
        self._left = times
        self.asked: list[str | None] = []  # Last-Event-ID of each connection to an event stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not scope["path"].endswith("/events"):
            await self._app(scope, receive, send)
            return
        self.asked.append(dict(scope["headers"]).get(b"last-event-id", b"").decode() or None)
        cut, self._left = self._left > 0, self._left - 1
        sent = 0

        async def passed_on(message: Message) -> None:
            nonlocal sent
            sent += message["type"] == "http.response.body"
            if cut and sent > self._pieces:
                raise ConnectionResetError("cut by the test")  # uvicorn then closes the connection
            await send(message)

        await self._app(scope, receive, passed_on)
