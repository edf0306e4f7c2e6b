"""Events through Serve's Python proxy: as they come, cut off, and across the death of the Ingress.

`test_restart.py` has a restart of the whole service, and HAProxy.
"""

import time

import httpx

from tests.client import Client, body
from tests.integration.listening import cut_off, events, first_output, outputs_and_end
from tests.service_process import ServiceProcess

LONG = {"sample_steps": 150, "width": 128, "height": 128, "num_frames": 17}  # seconds, of which something is heard


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


def test_a_listener_continues_after_the_death_of_the_ingress(service: ServiceProcess, client: Client) -> None:
    request_id = client.submit(body({}, LONG))
    heard = events(service, request_id)
    last = first_output(heard)
    (ingress,) = service.replicas("Ingress")
    ingress.kill()
    cut_off(heard)
    ended(client, request_id)
    assert outputs_and_end(events(service, request_id, last)) == [("output", 1), ("done", None)]
