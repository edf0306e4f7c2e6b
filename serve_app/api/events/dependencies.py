"""FastAPI dependencies of endpoints that wait for what becomes of a request."""

from typing import Annotated

from fastapi import Depends, Request

from serve_app.api.events.hub import EventHub
from serve_app.api.events.listeners import Listeners


async def _hub(request: Request) -> EventHub:
    hub: EventHub = request.app.state.event_hub
    return hub


async def _listeners(request: Request) -> Listeners:
    listeners: Listeners = request.app.state.listeners
    return listeners


HubDep = Annotated[EventHub, Depends(_hub)]
ListenersDep = Annotated[Listeners, Depends(_listeners)]
