"""Events through the Python client: typed, in order, across lost connections, to the end."""

from pathlib import Path

import pytest
from httpx2 import ServerSentEvent

from serve_app.client import AsyncClient, Client, Done, Event, OutputReady, StatusChanged, Step
from serve_app.client.events import event_of
from serve_app.errors import AnswerNotUnderstood, RequestNotFound
from tests.fixtures.api import UNKNOWN, Api
from tests.fixtures.loopback import loopback
from tests.fixtures.renderer import rendering
from tests.serve_app.client.conftest import in_thread, request_for
from tests.serve_app.client.faults import CutsStreams


async def test_a_request_is_heard_from_the_queue_to_its_end(api: Api, remote: Client, tmp_path: Path) -> None:
    accepted = await in_thread(remote.submit, request_for({"sample_steps": 4}, {"sample_steps": 4, "seed": 7}))
    async with rendering(api, step_s=0.2):
        events: list[Event] = await in_thread(lambda: [*remote.events(accepted.request_id)])
    first, last = events[0], events[-1]
    assert isinstance(first, StatusChanged)
    assert isinstance(last, Done)
    assert last.status.status == "succeeded"
    steps = [(event.index, event.step, event.progress) for event in events if isinstance(event, Step)]
    assert steps
    assert steps == sorted(steps)
    outputs = [event.video for event in events if isinstance(event, OutputReady)]
    assert [video.index for video in outputs] == [0, 1]
    assert (await in_thread(remote.download, outputs[1], tmp_path / "a.mp4")).stat().st_size == outputs[1].size


async def test_a_stream_that_is_cut_continues_and_tells_no_output_twice(api: Api) -> None:
    cutting = CutsStreams(api.app, pieces=1, times=3)
    async with loopback(cutting) as url, AsyncClient(url) as client, rendering(api, step_s=0.3):
        accepted = await client.submit(request_for({}, {"seed": 7}))
        events = [event async for event in client.events(accepted.request_id)]
    assert [event.video.index for event in events if isinstance(event, OutputReady)] == [0, 1]
    assert isinstance(events[-1], Done)
    assert len(cutting.asked) >= 3  # a busy machine makes fewer events, so fewer of them are cut off
    assert cutting.asked[0] is None
    assert None not in cutting.asked[1:]


async def test_an_unknown_request_has_no_events(remote: Client) -> None:
    with pytest.raises(RequestNotFound):
        await in_thread(next, remote.events(UNKNOWN))


def test_events_of_tomorrow_are_passed_over_and_damaged_ones_are_errors() -> None:
    assert event_of(ServerSentEvent(event="weather", data="{}")) is None
    with pytest.raises(AnswerNotUnderstood, match="an event 'step'"):
        event_of(ServerSentEvent(event="step", data="{}"))
