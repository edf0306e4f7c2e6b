"""FastAPI dependency of endpoints that wait for changes of a request."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from serve_app.api.events.hub import EventHub
from serve_app.api.events.listeners import Listeners


@dataclass(frozen=True, slots=True)
class Listening:
    """The event hub, and the limits on listeners."""

    hub: EventHub
    listeners: Listeners


async def _listening(request: Request) -> Listening:
    return Listening(request.app.state.event_hub, request.app.state.listeners)


ListeningDep = Annotated[Listening, Depends(_listening)]
