"""Servers that send a byte a second: they take their share of the fetching threads, and nobody else waits for them."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest

from serve_app.errors import TooManyFetches
from serve_app.net import Bulkhead, Client, Deadline, NetPolicy, ShareLimits, TooSlow, retry, ssl_context
from serve_app.net.pace import SpeedFloor
from tests.client import body
from tests.fixtures.api import Api, Json, ServeApi
from tests.fixtures.web_server import Exchange, File, Page, WebServer, web_server
from tests.serve_app.loras.files import full, save

PROMPT_S = 15  # on a busy machine; a good LoRA waited 58 s behind 16 slow ones
SLOW = "/slow.safetensors"
GOOD = "/good.safetensors"


def a_byte_a_second(exchange: Exchange, _count: int) -> None:
    exchange.start(206, ETag='"1"', Content_Length="262144", Content_Range="bytes 0-262143/400000")
    while not exchange.server.over.wait(1):
        exchange.body(b"x")


def a_head_a_second(exchange: Exchange, _count: int) -> None:
    exchange.body(b"HTTP/1.1 200 OK\r\n")
    while not exchange.server.over.wait(1):
        exchange.body(b"X")


def silence(exchange: Exchange, _count: int) -> None:
    exchange.wait()


def come_again_later(exchange: Exchange, _count: int) -> None:
    exchange.answer(503, Retry_After="20")


@pytest.fixture
def servers() -> Iterator[list[WebServer]]:
    """Twenty hosts, as far as their names and ports say."""
    with ExitStack() as stack:
        yield [stack.enter_context(web_server()) for _ in range(20)]


def naming(*paths: str) -> Json:
    sent = body()
    for item, path in zip(sent["loras"], paths, strict=False):
        item["path"] = path
    return sent


async def attacked(api: Api, addresses: list[str]) -> list[asyncio.Task[object]]:
    attacks: list[asyncio.Task[object]] = [asyncio.create_task(api.post(naming(address))) for address in addresses]
    await asyncio.sleep(1)
    return attacks


def publish_good(api: Api, server: WebServer) -> str:
    server.pages[GOOD] = File(save(api.directory / "good", full(rank=3)).read_bytes())
    return f"{server.url}{GOOD}"


def fetching(**args: Any) -> dict[str, Any]:
    return {"lora_private_hosts": ("127.0.0.1",), "lora_allow_http": True, **args}


@pytest.mark.parametrize("page", [a_byte_a_second, a_head_a_second, silence, come_again_later])
@pytest.mark.parametrize("spread", [1, 16])
async def test_a_good_lora_is_not_delayed(
    serve_api: ServeApi, servers: list[WebServer], page: Page, spread: int
) -> None:
    async with serve_api(**fetching()) as api:
        for server in servers[:spread]:
            server.pages[SLOW] = page
        addresses = [f"{servers[number % spread].url}{SLOW}?{number}" for number in range(16)]
        attacks = await attacked(api, addresses)
        good = publish_good(api, servers[-1])
        started = time.monotonic()
        answer = await api.post(naming(good, good))
        assert answer.status_code == 200, answer.text
        assert time.monotonic() - started < PROMPT_S
        for attack in attacks:
            attack.cancel()
        for server in servers:
            server.stop_waiting()


@pytest.mark.parametrize("page", [a_byte_a_second, silence])
async def test_another_senders_lora_is_read_while_one_uses_all_of_its_share(
    serve_api: ServeApi, servers: list[WebServer], page: Page
) -> None:
    async with serve_api(**fetching(trust_tenant_header=True)) as api:
        for server in servers[:16]:
            server.pages[SLOW] = page
        attacks = await attacked(
            api, [f"{server.url}{SLOW}?{number}" for number in range(4) for server in servers[:16]]
        )
        good = publish_good(api, servers[-1])
        started = time.monotonic()
        found = await api.http.post("/v1/inference", json=naming(good, good), headers={"X-Tenant": "another"})
        assert found.status_code == 200, found.text
        assert time.monotonic() - started < PROMPT_S
        for attack in attacks:
            attack.cancel()
        for server in servers:
            server.stop_waiting()


async def test_who_comes_when_all_threads_are_taken_is_sent_away_at_once(
    serve_api: ServeApi, servers: list[WebServer]
) -> None:
    async with serve_api(**fetching(fetch_threads=2)) as api:
        servers[0].pages[SLOW] = a_byte_a_second
        attacks = await attacked(api, [f"{servers[0].url}{SLOW}?{number}" for number in range(2)])
        started = time.monotonic()
        answer = await api.post(naming(publish_good(api, servers[1])))
        assert time.monotonic() - started < PROMPT_S
        assert answer.status_code == 503
        assert answer.json()["detail"]["error"]["code"] == "TOO_MANY_FETCHES"
        assert int(answer.headers["Retry-After"]) > 0
        local = await api.post(body())
        assert local.status_code == 200
        for attack in attacks:
            attack.cancel()
        servers[0].stop_waiting()


async def test_a_request_for_many_files_is_not_refused_for_its_own_sake(
    serve_api: ServeApi, servers: list[WebServer]
) -> None:
    async with serve_api(**fetching(fetch_per_host=4)) as api:
        good = publish_good(api, servers[0])
        items = [{"path": f"{good}?{number}"} for number in range(16)]
        found = await api.http.post("/v1/loras/inspect", json={"loras": items})
        assert [file.get("error") for file in found.json()["files"]] == [None] * 16


@pytest.mark.parametrize("page", [a_byte_a_second, a_head_a_second, silence])
def test_a_server_below_the_floor_is_left_once_the_window_is_over(server: WebServer, page: Page) -> None:
    policy = NetPolicy(private_hosts=("127.0.0.1",), allow_http=True, speed_window_s=1.5, min_bytes_per_s=100)
    server.pages[SLOW] = page
    deadline = Deadline(60)

    def read() -> None:
        with (
            Client(policy, deadline, ssl_context()) as client,
            client.stream("GET", f"{server.url}{SLOW}") as response,
        ):
            for _ in response.iter_raw():
                pass

    started = time.monotonic()
    with pytest.raises(TooSlow):
        retry(read, policy, deadline)
    assert time.monotonic() - started < PROMPT_S
    assert server.count(SLOW) == 1
    server.stop_waiting()


@pytest.fixture
def server() -> Iterator[WebServer]:
    with web_server() as server:
        yield server


class Rates:
    min_bytes_per_s = 1000.0
    speed_window_s = 0.2


def test_a_pause_within_the_window_is_forgiven_and_own_slowness_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("serve_app.net.pace.time", SimpleNamespace(monotonic=lambda: now))
    floor = SpeedFloor(Rates())
    for _ in range(3):
        with floor.waiting() as received:
            now += 0.11
            received(bytes(300))
        now += 0.3
    with pytest.raises(TooSlow), floor.waiting():
        now += 0.3


async def test_threads_are_shared_out_and_given_back() -> None:
    bulkhead = Bulkhead(ShareLimits(threads=3, per_host=1, per_sender=2))
    ready = asyncio.Event()
    loop = asyncio.get_running_loop()
    release = []

    def work() -> str:
        future = asyncio.run_coroutine_threadsafe(ready.wait(), loop)
        release.append(future)
        future.result(10)
        return "done"

    first = asyncio.create_task(bulkhead.run(work, host="a", sender="one"))
    await asyncio.sleep(0.1)
    with pytest.raises(TooManyFetches, match="from this host"):
        await bulkhead.run(work, host="a", sender="two")
    second = asyncio.create_task(bulkhead.run(work, host="b", sender="one"))
    await asyncio.sleep(0.1)
    with pytest.raises(TooManyFetches, match="for this sender"):
        await bulkhead.run(work, host="c", sender="one")
    third = asyncio.create_task(bulkhead.run(work, host=None, sender="two"))
    await asyncio.sleep(0.1)
    with pytest.raises(TooManyFetches, match="3 files are being read already"):
        await bulkhead.run(work, host="d", sender="three")
    second.cancel()
    with pytest.raises(TooManyFetches):  # its caller has gone, and its thread still works
        await bulkhead.run(work, host="d", sender="three")
    ready.set()
    assert await first == await third == "done"
    assert await bulkhead.run(lambda: "again", host="a", sender="one") == "again"
