"""Webhooks reach a real receiver that fails, hangs and comes back, with signatures that its library verifies."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import SecretStr
from standardwebhooks import Webhook as Verifier

from serve_app.jobs.outbox import DeliveryState
from serve_app.jobs.records import Webhook, WebhookEvent
from serve_app.jobs.store import JobStore
from serve_app.net import host_of
from serve_app.observers import Observer, Observers
from serve_app.settings import Settings
from serve_app.tasks import detached
from serve_app.webhooks.signing import secret_of
from serve_app.webhooks.worker import PER_HOST, WebhookWorker
from tests.fixtures.store import NewDatabase
from tests.fixtures.web_server import WebServer, web_server
from tests.serve_app.jobs.helpers import claim_next, output, submit
from tests.serve_app.webhooks.receiver import Receiver

MASTER = "a secret of the whole service"


@pytest.fixture
def server() -> Iterator[WebServer]:
    with web_server() as server:
        yield server


@dataclass
class Heard(Observer):
    states: list[DeliveryState] = field(default_factory=list)

    def told(self, state: DeliveryState) -> None:
        self.states.append(state)


@asynccontextmanager
async def working(
    url: str, server: WebServer, *, observer: Observer | None = None, **args: Any
) -> AsyncIterator[JobStore]:
    """Yield a process of the service that tells webhooks; its store."""
    local = {"webhook_private_hosts": [server.host], "webhook_allow_http": True}
    quick = {"webhook_backoff_s": 0.05, "webhook_timeout_s": 0.5, "webhook_secret": MASTER, "database_url": url}
    store = JobStore(url)
    observers = Observers(*([] if observer is None else [observer]))
    worker = WebhookWorker(store, Settings.from_args({**local, **quick, **args}), observers, look_every_s=0.01)
    running = detached(worker.run())
    try:
        yield store
    finally:
        running.cancel()
        await worker.close()
        await store.close()


def hook(server: WebServer, path: str = "/hook", *events: WebhookEvent) -> Webhook:
    url = f"{server.url}{path}"
    return Webhook(url=url, host=host_of(url), events=events or tuple(WebhookEvent))


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it does not come"
        await asyncio.sleep(0.01)


async def test_a_receiver_verifies_what_it_hears(new_database: NewDatabase, server: WebServer) -> None:
    receiver = server.pages["/hook"] = Receiver()
    async with working(new_database("sqlite"), server) as store:
        await submit(store, tenant="team-a", webhook=hook(server))
        claim = await claim_next(store)
        await store.claims.succeed(claim, output(claim))
        await until(lambda: len(receiver.messages) == 3)
    assert receiver.types == ["request.started", "request.output", "request.ended"]
    verifier = Verifier(secret_of("team-a", SecretStr(MASTER)).get_secret_value())
    for headers, body in receiver.messages:
        assert verifier.verify(body, headers) == json.loads(body)
    others = Verifier(secret_of("team-b", SecretStr(MASTER)).get_secret_value())
    with pytest.raises(Exception, match="No matching signature"):
        others.verify(receiver.messages[0][1], receiver.messages[0][0])


async def test_a_receiver_that_fails_hears_the_same_message_again_and_the_others_in_order(
    new_database: NewDatabase, server: WebServer
) -> None:
    receiver = server.pages["/hook"] = Receiver(answers=[500, 302])
    heard = Heard()
    async with working(new_database("sqlite"), server, observer=heard) as store:
        request_id = await submit(store, webhook=hook(server))
        claim = await claim_next(store)
        await store.claims.succeed(claim, output(claim))
        await until(lambda: len(heard.states) == 5)
        assert receiver.types == ["request.started"] * 3 + ["request.output", "request.ended"]
        assert len({headers["webhook-id"] for headers, _ in receiver.messages[:3]}) == 1
        assert len({body for _, body in receiver.messages[:3]}) == 1
        _, (started, *_others) = await store.outbox.log(request_id)
        assert [attempt.status for attempt in started.attempts] == [500, None, 204]
        assert started.attempts[0].error == "the receiver answered 500"
        assert "redirects" in (started.attempts[1].error or "")
    assert heard.states == ["pending", "pending", "delivered", "delivered", "delivered"]
    assert server.count("/elsewhere") == 0


async def test_messages_survive_a_restart_while_the_receiver_is_away(
    new_database: NewDatabase, server: WebServer
) -> None:
    database = new_database("sqlite")
    receiver = server.pages["/hook"] = Receiver(hangs=True)
    async with working(database, server) as store:
        request_id = await submit(store, webhook=hook(server, "/hook", WebhookEvent.ENDED))
        await store.requests.cancel(request_id)
        await until(lambda: len(receiver.messages) >= 1)
    receiver.hangs = False
    heard = Heard()
    async with working(database, server, observer=heard) as store:
        await until(lambda: DeliveryState.DELIVERED in heard.states)
        _, (ended,) = await store.outbox.log(request_id)
    assert ended.attempts[0].error == "its server took too long to answer"
    assert {headers["webhook-id"] for headers, _ in receiver.messages} == {ended.message_id}


async def test_a_receiver_that_hangs_holds_up_nobody_else(new_database: NewDatabase, server: WebServer) -> None:
    hanging = server.pages["/hook"] = Receiver(hangs=True)
    with web_server() as quick:
        good = quick.pages["/hook"] = Receiver()
        hosts = [server.host, quick.host]
        async with working(new_database("sqlite"), server, webhook_private_hosts=hosts, webhook_timeout_s=30) as store:
            for _ in range(3 * PER_HOST):
                await store.requests.cancel(await submit(store, webhook=hook(server)))
            await until(lambda: len(hanging.messages) == PER_HOST)
            started = time.monotonic()
            await store.requests.cancel(await submit(store, webhook=hook(quick)))
            await until(lambda: len(good.messages) == 1)
            assert time.monotonic() - started < 15  # half of what a receiver that hangs is given
            assert len(hanging.messages) == PER_HOST
            server.stop_waiting()


async def test_a_receiver_that_is_gone_is_told_nothing_more_of_it(new_database: NewDatabase, server: WebServer) -> None:
    server.pages["/hook"] = Receiver(answers=[410])
    heard = Heard()
    async with working(new_database("sqlite"), server, observer=heard) as store:
        await store.requests.cancel(await submit(store, webhook=hook(server)))
        await until(lambda: heard.states == [DeliveryState.GIVEN_UP])


async def test_an_address_that_has_become_private_is_not_reached(new_database: NewDatabase, server: WebServer) -> None:
    receiver = server.pages["/hook"] = Receiver()
    heard = Heard()
    async with working(
        new_database("sqlite"), server, observer=heard, webhook_private_hosts=[], webhook_backoff_s=60
    ) as store:
        request_id = await submit(store, webhook=hook(server))
        await store.requests.cancel(request_id)
        await until(lambda: heard.states == [DeliveryState.PENDING])
        _, (ended,) = await store.outbox.log(request_id)
    assert "not on the public internet" in (ended.attempts[0].error or "")
    assert receiver.messages == []


async def test_of_two_processes_one_tells(new_database: NewDatabase, server: WebServer) -> None:
    database = new_database("sqlite")
    receiver = server.pages["/hook"] = Receiver()
    async with working(database, server) as store, working(database, server):
        for _ in range(10):
            await store.requests.cancel(await submit(store, webhook=hook(server)))
        await until(lambda: len(receiver.messages) >= 10)
        await asyncio.sleep(0.1)
    assert len(receiver.messages) == 10
