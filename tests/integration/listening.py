"""A standard client of server-sent events (httpx-sse), which does nothing by itself when it is cut off."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
from httpx_sse import ServerSentEvent, connect_sse

from tests.service_process import ServiceProcess

Told = tuple[str, int | None]  # the name of an event, and the index of the output that it is about


def events(service: ServiceProcess, request_id: str, last: str = "") -> Iterator[ServerSentEvent]:
    """Yield the events of a request as they come, behind the one with the id `last`."""
    headers: dict[str, Any] = {"Last-Event-ID": last} if last else {}
    with (
        httpx.Client(base_url=service.url, timeout=60) as http,
        connect_sse(http, "GET", f"/v1/requests/{request_id}/events", headers=headers) as source,
    ):
        source.response.raise_for_status()
        yield from source.iter_sse()


def first_output(heard: Iterator[ServerSentEvent]) -> str:
    """Return the id of the next event that tells of an output."""
    return next(event.id for event in heard if event.event == "output")


def cut_off(heard: Iterator[ServerSentEvent]) -> None:
    """Listen on until the connection is lost."""
    with suppress(httpx.HTTPError):
        list(heard)
    heard.close()  # type: ignore[attr-defined]  # a generator


def outputs_and_end(heard: Iterator[ServerSentEvent]) -> list[Told]:
    """Return what must never be told twice or missed: outputs and the end."""
    return [(event.event, event.json().get("index")) for event in heard if event.event in ("output", "done")]
