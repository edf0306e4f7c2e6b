"""Links in answers name the service, and never a host that a stranger wrote into the Host header."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.client import body
from tests.fixtures.api import Api, ServeApi
from tests.fixtures.each import each

OURS = [
    "localhost",
    "localhost:8000",
    "a.localhost",
    "127.0.0.1:8000",
    "[::1]:8000",
    "10.0.0.7",
    "192.168.1.5:8443",
    "172.16.0.1",
    "[fd00::1]",
    "gpu-box",
    "gpu-box:8000",
    "GPU-BOX",
    "wan.local",
    "wan.lan:80",
    "wan.home.arpa",
    "wan.corp.internal",
    "wan.default.svc:8000",
    "wan.default.svc.cluster.local:8000",
]
THEIRS = [
    "evil.example",
    "evil.example:8000",
    "EVIL.example",
    "evil.example.",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "evil-local.example",
    "6.6.6.6",
    "[2606:4700::1111]",
    "xn--evl-pla.example",
    "evil.example@localhost",
    "localhost@evil.example",
    "evil.example#.localhost",
    "evil.example/.localhost",
    "evil.example?.localhost",
    "evil.example\\.localhost",
    "evil.example .localhost",
    "localhost:8000@evil.example",
    "evil.example:80.localhost",
    "1.1.1.1:80:localhost",
]


async def links(api: Api, host: str) -> list[str]:
    """Return every link that a client with this Host header gets."""
    headers = {"Host": host, "Content-Type": "application/json"}
    accepted = await api.http.post("/v1/inference", content=json.dumps(body()), headers=headers)
    assert accepted.status_code == 200, accepted.text
    await api.finish(await api.claim())
    answer: dict[str, Any] = accepted.json()
    path = f"/v1/requests/{answer['request_id']}/result"
    (video,) = (await api.http.get(path, headers={"Host": host})).json()["outputs"]["videos"]
    return [answer["status_url"], answer["result_url"], answer["cancel_url"], video["url"]]


@each("host", OURS)
async def test_a_host_of_this_network_is_named(host: str, api: Api) -> None:
    assert [link.partition("/v1/")[0] for link in await links(api, host)] == [f"http://{host}"] * 4


@each("host", THEIRS)
async def test_a_stranger_is_not_named(host: str, api: Api) -> None:
    for link in await links(api, host):
        assert link.startswith("/v1/requests/")


@each("host", [*OURS, *THEIRS])
@each("path", ["/v1/models/", "/v1/inference/", "/health/?a=http://evil.example/"])
async def test_a_redirect_names_nobody(path: str, host: str, api: Api) -> None:
    for method in ("GET", "POST", "HEAD"):
        answer = await api.http.request(method, path, headers={"Host": host})
        assert answer.status_code == 307
        assert answer.headers["location"] == path.replace("/?", "?").removesuffix("/") + ("/" if "?" in path else "")


@pytest.mark.parametrize(
    ("patterns", "host", "named"),
    [
        (["wan.example"], "wan.example", True),
        (["wan.example"], "WAN.example:8000", True),
        (["wan.example"], "wan.example.", True),
        (["wan.example"], "a.wan.example", False),
        (["wan.example"], "wanxexample", False),
        (["wan.example"], "localhost", False),
        (["*.example"], "wan.example", True),
        (["*.example"], "example", False),
        (["*.example"], "wan.example.evil", False),
        (["a.example", "b.example"], "b.example", True),
        (["203.0.113.7"], "203.0.113.7:8000", True),
        (["[2001:db8::1]"], "[2001:db8::1]:8000", True),
        (["*"], "anything.example", True),
        ([], "localhost", False),
    ],
)
async def test_the_arg_lists_who_may_be_named(patterns: list[str], host: str, named: bool, serve_api: ServeApi) -> None:
    async with serve_api(allowed_hosts=patterns) as api:
        roots = {link.partition("/v1/")[0] for link in await links(api, host)}
    assert roots == {f"http://{host}" if named else ""}


async def test_the_address_of_the_service_goes_before_any_host(serve_api: ServeApi) -> None:
    async with serve_api(base_url="https://wan.example/api", allowed_hosts=["*"]) as api:
        assert {link.partition("/v1/")[0] for link in await links(api, "evil.example")} == {"https://wan.example/api"}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    before=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=10),
    after=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=10),
)
async def test_no_spelling_brings_a_stranger_in(before: str, after: str, api: Api) -> None:
    host = f"{before}evil.example{after}"
    answer = await api.http.get("/v1/models", headers={"Host": host})
    assert answer.status_code == 200
    headers = {"Host": host, "Content-Type": "application/json"}
    accepted = await api.http.post("/v1/inference", content=json.dumps(body()), headers=headers)
    root = accepted.json()["status_url"].partition("/v1/requests/")[0]
    assert not root or _ends_inside(root)


def _ends_inside(root: str) -> bool:
    """Return whether it is a name under a domain that no stranger has, such as evil.example.test."""
    name = root.removeprefix("http://").partition(":")[0].rstrip(".").lower()
    return name.rpartition(".")[2] in ("localhost", "local", "internal", "lan", "test", "svc")
