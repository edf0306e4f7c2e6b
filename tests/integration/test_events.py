"""Events through Serve's proxy: as they come, cut off, and across the death of the Ingress."""

import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
from httpx_sse import ServerSentEvent, connect_sse

from tests.client import Client, body
from tests.service_process import ServiceProcess

LONG = {"sample_steps": 150, "width": 128, "height": 128, "num_frames": 17}  # seconds, of which something is heard


def events(service: ServiceProcess, request_id: str, last: str = "") -> Iterator[ServerSentEvent]:
    """Yield the events of a request as they come."""
    headers: dict[str, Any] = {"Last-Event-ID": last} if last else {}
    with (
        httpx.Client(base_url=service.url, timeout=60) as http,
        connect_sse(http, "GET", f"/v1/requests/{request_id}/events", headers=headers) as source,
    ):
        source.response.raise_for_status()
        yield from source.iter_sse()


def ended(client: Client, request_id: str) -> None:
    """Wait for the end of a request, whatever the API answers until it is back."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        try:
            client.wait(request_id)
        except (httpx.HTTPError, ValueError):
            time.sleep(0.2)
        else:
            return
    raise AssertionError("the API is not back")


def test_steps_and_previews_come_while_they_are_made(service: ServiceProcess, client: Client) -> None:
    request_id = client.submit(body({**LONG, "seed": 5}, preview=True))
    heard = list(events(service, request_id))
    names = [event.event for event in heard]
    assert names[-2:] == ["output", "done"]
    steps = [event.json()["step"] for event in heard if event.event == "step"]
    assert len(steps) > 1
    assert steps == sorted(set(steps))
    assert "preview" in names
    assert heard[-1].json() == client.status(request_id)


def test_a_listener_goes_on_after_the_death_of_the_ingress(service: ServiceProcess, client: Client) -> None:
    request_id = client.submit(body({}, LONG))
    first = events(service, request_id)
    last = next(event.id for event in first if event.event == "output")
    (ingress,) = service.replicas("Ingress")
    ingress.kill()
    with suppress(httpx.HTTPError):  # how a stream that is cut off ends
        list(first)
    first.close()  # type: ignore[attr-defined]  # a generator
    ended(client, request_id)
    rest = list(events(service, request_id, last))
    assert [(event.event, event.json().get("index")) for event in rest] == [("output", 1), ("done", None)]
