"""`GET /v1/requests/{id}/events`: what a listener hears, also one that was cut off."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack

import httpx
import pytest
from httpx_sse import ServerSentEvent

from serve_app.api.events import hub as hubs
from serve_app.jobs.records import Preview
from serve_app.jobs.store import JobStore
from tests.client import body
from tests.fixtures.api import LEASE_S, UNKNOWN, on_both_databases
from tests.serve_app.api.events.conftest import Served

pytestmark = on_both_databases

Serve = Callable[..., AbstractAsyncContextManager[Served]]


async def heard(events: AsyncIterator[ServerSentEvent], name: str) -> ServerSentEvent:
    """Return the next event of that name."""
    return (await heard_all(events, name))[name]


async def heard_all(events: AsyncIterator[ServerSentEvent], *names: str) -> dict[str, ServerSentEvent]:
    """Return the next events of these names, in whatever order they come."""
    found: dict[str, ServerSentEvent] = {}
    async with asyncio.timeout(30):
        async for event in events:
            if event.event in names:
                found.setdefault(event.event, event)
            if len(found) == len(names):
                return found
    raise AssertionError(f"the stream ended without {set(names) - found.keys()}")


async def until(condition: Callable[[], object]) -> None:
    """Wait until it holds."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)


async def test_a_listener_hears_a_request_from_the_queue_to_its_end(served: Serve) -> None:
    async with served() as service:
        api = service.api
        before = await api.submit(body())
        request_id = await api.submit(body({"sample_steps": 4}, preview=True))
        async with service.listening(request_id) as events:
            queued = (await heard(events, "status")).json()
            assert (queued["status"], queued["queue_position"]) == ("in_queue", 1)
            assert queued == await api.status(request_id)
            await api.finish(await api.claim())
            while (await heard(events, "status")).json()["queue_position"] != 0:
                pass
            claim = await api.claim()
            while (await heard(events, "status")).json()["status"] != "in_progress":
                pass  # the prediction may change before
            await api.store.claims.renew(claim, 3, LEASE_S, Preview(3, b"RIFF"))
            # A look reads one after the other, so that a change between the two makes the preview come first.
            both = await heard_all(events, "step", "preview")
            step, preview = both["step"].json(), both["preview"].json()
            assert (step["index"], step["step"], step["steps"], step["progress"]) == (0, 3, 4, 0.75)
            assert step["eta_seconds"] == (await api.status(request_id))["eta_seconds"]
            kind, image = preview["image"].split(",")
            assert (preview["step"], kind, base64.b64decode(image)) == (3, "data:image/webp;base64", b"RIFF")
            await api.finish(claim)
            video = (await heard(events, "output")).json()
            assert video["sha256"] == (await api.result(request_id))["outputs"]["videos"][0]["sha256"]
            assert (await service.http.get(video["url"])).content == b"a video"
            assert (await heard(events, "done")).json() == await api.status(request_id)
            assert [event async for event in events] == []  # it has ended by itself
        assert [event.event for event in await service.all(before)] == ["output", "done"]


async def test_who_was_cut_off_misses_nothing_and_hears_nothing_twice(served: Serve) -> None:
    async with served() as service:
        api = service.api
        request_id = await api.submit(body({}, {}, {}))
        await api.finish(await api.claim())
        async with service.listening(request_id) as events:
            first = await heard(events, "output")
        await api.finish(await api.claim())
        await api.finish(await api.claim())
        rest = await service.all(request_id, last=first.id)
        assert [(event.event, event.json().get("index")) for event in rest] == [
            ("output", 1),
            ("output", 2),
            ("done", None),
        ]
        answer = await service.http.get(f"/v1/requests/{request_id}/events", headers={"Last-Event-ID": rest[-1].id})
        assert answer.status_code == 204  # which tells a browser to stop


async def test_another_process_continues_where_the_first_one_stopped(served: Serve) -> None:
    async with served() as one:
        request_id = await one.api.submit(body({}, {}))
        await one.api.finish(await one.api.claim())
        async with one.listening(request_id) as events:
            first = await heard(events, "output")
    async with served() as other:
        await other.api.finish(await other.api.claim())
        assert [event.event for event in await other.all(request_id, last=first.id)] == ["output", "done"]


async def test_a_failure_and_a_cancel_end_the_stream(served: Serve) -> None:
    async with served() as service:
        api = service.api
        failed, canceled = await api.submit(body()), await api.submit(body())
        await api.fail(await api.claim())
        listening = asyncio.create_task(service.all(canceled))
        await service.http.post(f"/v1/requests/{canceled}/cancel")
        done = (await service.all(failed))[-1].json()
        assert (done["status"], done["error_code"]) == ("failed", "RENDER_FAILED")
        assert (await listening)[-1].json()["status"] == "canceled"


async def test_a_deleted_request_ends_the_stream(served: Serve) -> None:
    async with served() as service:
        request_id = await service.api.submit(body())
        listening = asyncio.create_task(service.all(request_id))
        await until(lambda: service.api.app.state.event_hub._watched)
        await service.api.store.requests.cancel(request_id)
        await service.api.store.requests.remove(request_id)
        assert (await listening)[-1].event in ("status", "done")


async def test_many_listeners_cost_what_one_costs(served: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    async with served() as service:
        api, looks = service.api, []
        look = type(api.store.requests).look

        async def counted(self: object, known: object, shown: object, *, places: bool) -> object:
            looks.append(len(known))  # type: ignore[arg-type]
            return await look(self, known, shown, places=places)  # type: ignore[arg-type]

        monkeypatch.setattr(type(api.store.requests), "look", counted)
        monkeypatch.setattr(hubs, "LOOK_S", 0.2)
        ids = [await api.submit(body()) for _ in range(3)]
        listening = [asyncio.create_task(service.all(ids[number % 3])) for number in range(30)]
        started = time.monotonic()
        await until(lambda: looks.count(3) >= 4)
        assert len(looks) <= (time.monotonic() - started) / hubs.LOOK_S + 2  # and not thirty times as many
        assert max(looks) == 3
        for _ in ids:
            await api.finish(await api.claim())
        assert all(events[-1].event == "done" for events in await asyncio.gather(*listening))
        looks.clear()
        await asyncio.sleep(0.5)
        assert len(looks) <= 1  # nobody listens: nothing is read


async def test_heartbeats_come_while_nothing_happens(served: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve_app.api.events.routes.HEARTBEAT_S", 0.05)
    async with served() as service:
        request_id = await service.api.submit(body())
        async with service.http.stream("GET", f"/v1/requests/{request_id}/events") as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            lines = answer.aiter_lines()
            while not (await anext(lines)).startswith(":"):
                pass


async def test_there_are_places_for_so_many_listeners(served: Serve) -> None:
    async with served(max_listeners=3, max_listeners_per_sender=2, trust_tenant_header=True) as service:
        headers = {tenant: {"X-Tenant": tenant} for tenant in ("one", "two", "three")}
        ids = {}
        for tenant, header in headers.items():
            answer = await service.http.post("/v1/inference", json=body(), headers=header)
            ids[tenant] = answer.json()["request_id"]

        async def refused(tenant: str) -> tuple[int, str]:
            answer = await service.http.get(f"/v1/requests/{ids[tenant]}/events", headers=headers[tenant])
            assert int(answer.headers["Retry-After"]) > 0
            return answer.status_code, answer.json()["detail"]["error"]["code"]

        held = []  # an iterator that nobody holds closes its connection

        async def listens(tenant: str) -> None:
            held.append(await stack.enter_async_context(service.listening(ids[tenant], headers=headers[tenant])))
            await heard(held[-1], "status")

        async with AsyncExitStack() as stack:
            await listens("two")
            async with service.listening(ids["one"], headers=headers["one"]):
                await listens("one")
                assert await refused("one") == (429, "TOO_MANY_OWN_LISTENERS")
                assert await refused("three") == (503, "TOO_MANY_LISTENERS")
            # Who goes away makes room.
            await until(lambda: service.api.app.state.listeners._of_sender["one"] == 1)
            await listens("three")


async def test_the_stream_survives_a_store_that_is_away(served: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    async with served() as service:
        api = service.api
        request_id = await api.submit(body())
        away = JobStore(f"sqlite:////{api.directory}/nowhere/jobs.db")
        hub = api.app.state.event_hub
        async with service.listening(request_id) as events:
            await heard(events, "status")
            monkeypatch.setattr(hub, "_store", away)
            await asyncio.sleep(0.1)
            monkeypatch.setattr(hub, "_store", api.store)
            await api.finish(await api.claim())
            await heard(events, "done")
        await away.close()


@pytest.mark.parametrize("last", ["x", "-1", "f" * 251, "1.end.end"])
async def test_an_id_of_no_event_is_refused(served: Serve, last: str) -> None:
    async with served() as service:
        request_id = await service.api.submit(body())
        answer = await service.http.get(f"/v1/requests/{request_id}/events", headers={"Last-Event-ID": last})
        assert (answer.status_code, answer.json()["detail"]["error"]["code"]) == (400, "HEADER_INVALID")


async def test_an_unknown_request_and_a_head(served: Serve) -> None:
    async with served() as service:
        answer = await service.http.get(f"/v1/requests/{UNKNOWN}/events")
        assert answer.status_code == httpx.codes.NOT_FOUND
        request_id = await service.api.submit(body())
        head = await service.http.head(f"/v1/requests/{request_id}/events")
        assert (head.status_code, head.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        assert not service.api.app.state.listeners._of_sender
