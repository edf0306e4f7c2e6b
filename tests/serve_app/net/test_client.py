"""The client by itself: methods, redirects, credentials. What it means for LoRAs is in loras/sources."""

import logging
from collections.abc import Iterator

import httpx2
import pytest

from serve_app.net import (
    AddressForbidden,
    Client,
    Deadline,
    Forbidden,
    HostForbidden,
    NetPolicy,
    Transient,
    ssl_context,
)
from tests.fixtures.web_server import Exchange, WebServer, redirect, web_server


@pytest.fixture
def server() -> Iterator[WebServer]:
    with web_server() as server:
        server.pages["/"] = lambda exchange, _count: exchange.answer(200, b"hello")
        yield server


@pytest.fixture
def other() -> Iterator[WebServer]:
    with web_server() as other:
        other.pages["/"] = lambda exchange, _count: exchange.answer(200, b"other")
        yield other


def policy(*servers: WebServer) -> NetPolicy:
    return NetPolicy(
        private_hosts=tuple(server.host for server in servers), allow_http=True, read_timeout_s=1, connect_timeout_s=1
    )


def send(policy: NetPolicy, method: str, url: str, content: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    with (
        Client(policy, Deadline(3), ssl_context()) as client,
        client.stream(method, url, headers=headers, content=content) as response,
    ):
        return response.status_code, b"".join(response.iter_raw())


def echo(exchange: Exchange, _count: int) -> None:
    length = int(exchange.headers.get("Content-Length", "0"))
    exchange.answer(200, exchange.command.encode() + b" " + exchange.rfile.read(length))


def test_a_body_is_posted(server: WebServer) -> None:
    server.pages["/hook"] = echo
    assert send(policy(server), "POST", f"{server.url}/hook", b'{"id": 1}') == (200, b'POST {"id": 1}')


@pytest.mark.parametrize(("status", "arrives"), [(307, b"POST body"), (303, b"GET ")])
def test_a_redirected_post_is_what_the_status_says(server: WebServer, status: int, arrives: bytes) -> None:
    server.pages["/hook"], server.pages["/echo"] = redirect("/echo", status), echo
    assert send(policy(server), "POST", f"{server.url}/hook", b"body") == (200, arrives)


def test_credentials_stay_with_the_origin_that_they_are_for(server: WebServer, other: WebServer) -> None:
    server.pages["/here"], server.pages["/there"] = redirect("/"), redirect(f"{other.url}/")
    for path in ("/here", "/there"):
        send(policy(server, other), "GET", f"{server.url}{path}", Authorization="Bearer secret")
    assert [request.headers.get("authorization") for request in server.requests] == ["Bearer secret"] * 3
    assert [request.headers.get("authorization") for request in other.requests] == [None]


def test_a_post_to_a_private_address_never_leaves(server: WebServer) -> None:
    with pytest.raises(AddressForbidden, match="not on the public internet"):
        send(policy(), "POST", f"{server.url}/", b"body")
    assert not server.requests


def test_a_redirect_to_a_private_address_is_not_followed(server: WebServer, other: WebServer) -> None:
    server.pages["/go"] = redirect(f"{other.url}/")
    with pytest.raises(AddressForbidden):
        send(policy(server), "GET", f"{server.url}/go")
    assert not other.requests


def test_a_host_that_the_policy_does_not_name_is_refused() -> None:
    with pytest.raises(HostForbidden) as caught:
        send(NetPolicy(hosts=("*.example.com",)), "GET", "https://example.org/")
    assert caught.value.host == "example.org"


@pytest.mark.parametrize("target", ["http://[::1", "https://user:pw@example.com/", "file:///etc/passwd"])
def test_a_redirect_that_leads_nowhere_good_is_refused(server: WebServer, target: str) -> None:
    server.pages["/go"] = redirect(target)
    with pytest.raises(Forbidden):
        send(policy(server), "GET", f"{server.url}/go")


def test_a_server_that_is_gone_may_come_back(server: WebServer) -> None:
    lost = NetPolicy(private_hosts=("127.0.0.1:1",), allow_http=True)
    with pytest.raises(Transient, match="cannot be reached"):
        send(lost, "GET", "http://127.0.0.1:1/")


def test_no_url_is_logged(server: WebServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    server.pages["/go"] = redirect("/?signature=secret")
    assert send(policy(server), "GET", f"{server.url}/go?key=secret")[1] == b"hello"
    assert "secret" not in caplog.text
    assert httpx2.URL(server.url).host not in caplog.text
