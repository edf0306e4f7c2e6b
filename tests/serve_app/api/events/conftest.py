"""The API over a socket, as streams need it, and a listener with a standard client."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any

import httpx
import pytest
from httpx_sse import ServerSentEvent, aconnect_sse

from serve_app.api.events import hub
from tests.fixtures.api import Api, ServeApi
from tests.fixtures.loopback import loopback

Listening = Callable[..., AbstractAsyncContextManager["Served"]]


class Served:
    """The API and its address; `heard` are the events of the last listener."""

    def __init__(self, api: Api, url: str) -> None:
        self.api = api
        self.http = httpx.AsyncClient(base_url=url, timeout=10)

    @asynccontextmanager
    async def listening(
        self, request_id: str, *, last: str | None = None, headers: dict[str, str] | None = None
    ) -> AsyncIterator[AsyncIterator[ServerSentEvent]]:
        """Listen to a request while the block runs."""
        sent = {**(headers or {}), **({} if last is None else {"Last-Event-ID": last})}
        async with aconnect_sse(self.http, "GET", f"/v1/requests/{request_id}/events", headers=sent) as source:
            source.response.raise_for_status()
            async with aclosing(source.aiter_sse()) as events:  # before its connection, and not when it is collected
                yield events

    async def all(self, request_id: str, **options: Any) -> list[ServerSentEvent]:
        """Return all events of a request, which must end within seconds."""
        async with asyncio.timeout(10), self.listening(request_id, **options) as events:
            return [event async for event in events]


@pytest.fixture
def served(serve_api: ServeApi, monkeypatch: pytest.MonkeyPatch) -> Callable[..., AbstractAsyncContextManager[Served]]:
    """Serve the API with the args that are given; looks at the store come quickly."""
    monkeypatch.setattr(hub, "LOOK_S", 0.01)
    monkeypatch.setattr(hub, "PLACES_S", 0.02)

    @asynccontextmanager
    async def serve(**args: Any) -> AsyncIterator[Served]:
        async with serve_api(**args) as api, loopback(api.app) as url:
            found = Served(api, url)
            try:
                yield found
            finally:
                await found.http.aclose()

    return serve
