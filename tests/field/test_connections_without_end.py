"""Half-sent heads, half-sent bodies and idle connections are closed in time; whoever is only slow is served."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from ray.serve._private.haproxy import HAProxyApi, HAProxyConfig
from ray.serve.config import HTTPOptions
from uvicorn.protocols.http import auto
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serve_app.launch.connections import ENVIRONMENT, Discarding, limit_heads
from tests.client import body
from tests.fixtures.api import ServeApi
from tests.service_process import free_port

HEAD_S = 0.5
IDLE_S = 1
PROMPT_S = 5  # on a busy machine
MUCH = b"x" * (4 << 20)
HALF_HEADS = [b"", b"G", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nX-A: b", b"POST / HTTP/1.1\r\n"]


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("WAN_LORA_HEAD_TIMEOUT_S", str(HEAD_S))
    monkeypatch.setattr(auto, "AutoHTTPProtocol", HttpToolsProtocol)
    assert limit_heads() == []
    yield


@contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        yield connection


async def serving(app: FastAPI) -> AsyncIterator[int]:
    """As Serve's proxy starts uvicorn."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(app, lifespan="off", access_log=False, log_config=None, timeout_keep_alive=IDLE_S)
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve(sockets=[listening]))
        while not server.started:  # noqa: ASYNC110  uvicorn tells no event
            await asyncio.sleep(0.01)
        yield listening.getsockname()[1]
        server.should_exit = True
        await task


@pytest.fixture
async def port(timed: None) -> AsyncIterator[int]:
    app = FastAPI()
    app.get("/")(lambda: {})
    app.post("/")(lambda: {})  # answers without its body
    async for port in serving(app):
        yield port


def until_closed(connection: socket.socket) -> bytes:
    received = bytearray()
    while data := connection.recv(65536):
        received += data
    return bytes(received)


def send_and_wait(port: int, sent: bytes) -> tuple[bytes, float]:
    with connected(port) as connection:
        started = time.monotonic()
        connection.sendall(sent)
        return until_closed(connection), time.monotonic() - started


@pytest.mark.parametrize("head", HALF_HEADS)
async def test_half_a_head_is_not_waited_for(port: int, head: bytes) -> None:
    received, seconds = await asyncio.to_thread(send_and_wait, port, head)
    assert received == b""
    assert HEAD_S * 0.9 < seconds < PROMPT_S


async def test_a_trickle_of_headers_does_not_prolong_it(port: int) -> None:
    def trickle() -> float:
        with connected(port) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\n")
            started = time.monotonic()
            try:
                while time.monotonic() - started < PROMPT_S:
                    connection.sendall(b"X-A: b\r\n")
                    time.sleep(0.05)
            except OSError:
                pass  # closed
            return time.monotonic() - started

    assert await asyncio.to_thread(trickle) < PROMPT_S


async def test_an_idle_connection_is_closed_after_an_answer(port: int) -> None:
    received, seconds = await asyncio.to_thread(send_and_wait, port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"200 OK" in received
    assert seconds < PROMPT_S


async def test_half_of_a_second_head_is_not_waited_for(port: int) -> None:
    sent = b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTT"
    received, seconds = await asyncio.to_thread(send_and_wait, port, sent)
    assert received.count(b"200 OK") == 1
    assert seconds < PROMPT_S


async def test_several_requests_on_one_connection_are_answered(port: int) -> None:
    def ask() -> int:
        with connected(port) as connection:
            answered = 0
            for _ in range(4):
                for piece in (b"GET / HTTP/1.1\r\n", b"Host: x\r\n\r\n"):
                    connection.sendall(piece)
                    time.sleep(HEAD_S / 3)
                answered += b"200 OK" in connection.recv(65536)
            return answered

    assert await asyncio.to_thread(ask) == 4


@pytest.mark.parametrize("reads", [True, False])
async def test_an_answer_that_nobody_reads_is_not_kept(
    timed: None, monkeypatch: pytest.MonkeyPatch, *, reads: bool
) -> None:
    # Far more than the kernel's buffers hold.
    monkeypatch.setenv("WAN_LORA_READ_TIMEOUT_S", "2")
    app, sent, ended = FastAPI(), 64 << 20, asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        try:
            for _ in range(sent >> 16):
                yield bytes(1 << 16)
        finally:
            ended.set()

    app.get("/")(lambda: StreamingResponse(pieces()))
    async for port in serving(app):
        with connected(port) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            if reads:
                assert len(await asyncio.to_thread(until_closed, connection)) > sent
            await asyncio.wait_for(ended.wait(), 60)


@pytest.mark.parametrize("path", ["/v1/inference", "/v1/loras/inspect"])
@pytest.mark.parametrize("framing", [b"Content-Length: 1000\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"])
async def test_half_a_body_is_answered_408(serve_api: ServeApi, timed: None, path: str, framing: bytes) -> None:
    async with serve_api(body_timeout_s=0.5) as api:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n".encode()
        async for port in serving(api.app):
            received, seconds = await asyncio.to_thread(send_and_wait, port, head + framing)
            assert b"408 Request Timeout" in received
            assert b"BODY_TOO_SLOW" in received
            assert seconds < PROMPT_S
        assert (await api.post(body())).status_code == 200


# HAProxy, in Serve's own configuration of it


@pytest.fixture
async def haproxy(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[int]:
    """Run Serve's HAProxy with short timeouts and no replica: a head that never ends gets no further in any case."""
    place = tmp_path_factory.mktemp("ha")  # a socket's path is short
    port = free_port()
    config = HAProxyConfig(
        http_options=HTTPOptions(host="127.0.0.1", port=port, keep_alive_timeout_s=IDLE_S),
        timeout_client_s=IDLE_S,
        socket_path=str(place / "admin.sock"),
        stats_port=free_port(),
        metrics_port=free_port(),
        server_state_base=str(place),
        server_state_file=str(place / "state"),
    )
    proxy = HAProxyApi(config, config_file_path=str(place / "haproxy.cfg"))
    await proxy.start()
    yield port
    await proxy.stop()


def answered_early(connection: socket.socket) -> None:
    connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(MUCH))
    until_answered(connection)


def until_answered(connection: socket.socket) -> None:
    answer = b""
    while not answer.endswith(b"{}"):  # head and body may come one after the other
        piece = connection.recv(65536)
        assert piece, answer
        answer += piece
    assert answer.startswith(b"HTTP/1.1 200")


async def test_a_body_that_is_answered_before_its_end_may_be_sent_whole_and_the_connection_serves_on(port: int) -> None:
    def served_on() -> bytes:
        with connected(port) as connection:
            answered_early(connection)
            connection.sendall(MUCH + b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return until_closed(connection)

    assert (await asyncio.to_thread(served_on)).startswith(b"HTTP/1.1 200")


async def test_a_body_that_stops_behind_its_answer_is_not_waited_for(port: int) -> None:
    def stopped() -> float:
        with connected(port) as connection:
            answered_early(connection)
            started = time.monotonic()
            connection.sendall(b"x")
            assert until_closed(connection) == b""
            return time.monotonic() - started

    assert await asyncio.to_thread(stopped) < PROMPT_S


async def test_small_chunks_of_an_answered_body_are_read_and_the_connection_serves_on(port: int) -> None:
    def served_on() -> bytes:
        with connected(port) as connection:
            connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            until_answered(connection)
            chunks = b"1\r\nx\r\n" * 50_000 + b"0\r\n\r\n"
            connection.sendall(chunks + b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return until_closed(connection)

    assert (await asyncio.to_thread(served_on)).startswith(b"HTTP/1.1 200")


async def test_whoever_leaves_within_an_answered_body_does_no_harm(port: int) -> None:
    def left() -> None:
        with connected(port) as connection:
            answered_early(connection)
            connection.sendall(MUCH[: len(MUCH) // 2])

    await asyncio.to_thread(left)
    answer, _ = await asyncio.to_thread(send_and_wait, port, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")


def test_connections_that_send_answered_bodies_wait_for_each_other() -> None:
    discarding = Discarding()
    first, second = discarding.wait_s(1 << 30), discarding.wait_s(1 << 30)
    assert first < second


async def test_haproxy_closes_connections_that_say_nothing(haproxy: int) -> None:
    for head in HALF_HEADS:
        with connected(haproxy) as connection:
            connection.sendall(head)
            started = time.monotonic()
            received = await asyncio.to_thread(until_closed, connection)
            assert time.monotonic() - started < PROMPT_S
            assert received[:12] in (b"", b"HTTP/1.1 408")


def test_serve_reads_the_time_that_this_service_sets_for_haproxy() -> None:
    program = "from ray.serve._private.haproxy import HAProxyConfig; print(HAProxyConfig().timeout_client_s)"
    found = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True, check=True
    )
    assert found.stdout.split()[-1] == ENVIRONMENT["RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S"]
