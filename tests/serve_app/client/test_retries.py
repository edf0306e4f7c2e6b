"""Lost connections, busy services, wrong addresses: what the client rides out, and what it says when it cannot."""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from serve_app.api.schemas.answers import Video
from serve_app.client import AsyncClient, Client
from serve_app.client.events import Listening
from serve_app.client.failures import Refusal, refusal_of
from serve_app.client.retries import Retries
from serve_app.errors import (
    AnswerNotUnderstood,
    DownloadDamaged,
    FieldsInvalid,
    OutputNotFound,
    QueueFull,
    RefusedOtherwise,
    ServerUnreachable,
    StoreUnavailable,
)
from tests.fixtures.api import Api, ServeApi
from tests.fixtures.loopback import loopback
from tests.fixtures.web_server import File, WebServer, html, sha256, web_server
from tests.serve_app.client.conftest import in_thread, request_for, served
from tests.serve_app.client.faults import LosesAnswers

VIDEO = bytes(range(256)) * 2000


@pytest.fixture
def web() -> Iterator[WebServer]:
    with web_server() as server:
        yield server


async def test_a_submit_whose_answer_is_lost_is_one_request(api: Api) -> None:
    faulty = LosesAnswers(api.app, times=2)
    async with loopback(faulty) as url, AsyncClient(url) as client:
        accepted = await client.submit(request_for())
    assert faulty.lost == ["/v1/inference"] * 2
    assert [request.id for request in api.observed.requests] == [accepted.request_id]


async def test_two_submits_are_two_requests_and_one_key_is_one(remote: Client) -> None:
    ids = {(await in_thread(remote.submit, request_for())).request_id for _ in range(2)}
    again = {(await in_thread(remote.submit, request_for(), idempotency_key="mine")).request_id for _ in range(2)}
    assert (len(ids), len(again)) == (2, 1)


async def test_a_full_queue_is_waited_for_as_long_as_it_says_or_raised(serve_api: ServeApi) -> None:
    async with served(serve_api, max_queued=1) as (api, url):
        with Client(url, patience_s=0) as client:
            first = await in_thread(client.submit, request_for())
            with pytest.raises(QueueFull) as refused:
                await in_thread(client.submit, request_for())
        assert refused.value.retry_after_s is not None
        async with AsyncClient(url, patience_s=refused.value.retry_after_s + 30) as patient:
            second = asyncio.create_task(patient.submit(request_for()))
            await asyncio.sleep(0.2)
            await api.store.requests.cancel(first.request_id, owner=None)
            assert (await second).request_id != first.request_id


def test_nobody_at_the_address_is_an_error_that_says_so() -> None:
    started = time.monotonic()
    with (
        Client("http://127.0.0.1:1", patience_s=0.5) as client,
        pytest.raises(ServerUnreachable, match=r"127\.0\.0\.1:1"),
    ):
        client.models()
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("address", ["gpu-box:8000", "ftp://gpu-box", "http://", ""])
def test_what_is_no_address_says_how_one_looks(address: str) -> None:
    with pytest.raises(ServerUnreachable, match="http://host:8000"):
        Client(address)


def test_another_service_at_the_address_is_named(web: WebServer) -> None:
    web.pages["/v1/models"] = html
    with Client(web.url) as client, pytest.raises(AnswerNotUnderstood, match="address of this service"):
        client.models()


def test_a_proxy_that_knows_no_service_yet_is_waited_for(web: WebServer) -> None:
    answers = iter(
        [httpx2.Response(404, text="Path not found"), httpx2.Response(502), httpx2.Response(200, json=NO_LORAS)]
    )
    with Client(web.url, transport=httpx2.MockTransport(lambda _request: next(answers))) as client:
        assert client.loras().files == []


NO_LORAS = {"pairs": [], "files": [], "complete": True, "uploads_allowed": False}


def error(code: str, status: int = 400, **headers: str) -> Refusal:
    body = {"detail": {"error": {"code": code, "message": "no", "details": {"why": 1}}}}
    return refusal_of(httpx2.Response(status, json=body, headers=headers))


def test_answers_become_errors() -> None:
    unavailable = error("STORE_UNAVAILABLE", 503, **{"Retry-After": "7"})
    assert (type(unavailable.error), unavailable.temporary, unavailable.retry_after_s) == (StoreUnavailable, True, 7)
    unknown = error("OF_TOMORROW")
    assert (type(unknown.error), unknown.temporary) == (RefusedOtherwise, False)
    assert unknown.error.details == {"why": 1, "code": "OF_TOMORROW"}
    problems = [{"loc": ["body", "prompts", 0, "width"], "msg": "too small", "type": "x"}]
    fields = refusal_of(httpx2.Response(422, json={"detail": problems})).error
    assert isinstance(fields, FieldsInvalid)
    assert fields.message == "prompts[0].width: too small"


def test_waits_grow_and_respect_retry_after_within_the_patience() -> None:
    fault = ServerUnreachable("gone")
    patience = Retries(60)
    pauses = [patience.pause(Refusal(fault, temporary=True)) for _ in range(8)]
    assert pauses[0] < 0.5 < pauses[3]
    assert max(pauses) <= 15
    assert patience.pause(Refusal(fault, temporary=True, retry_after_s=30)) == 30
    with pytest.raises(ServerUnreachable):
        patience.pause(Refusal(fault, temporary=True, retry_after_s=61))
    with pytest.raises(ServerUnreachable):
        patience.pause(Refusal(fault, temporary=False))


def video_at(url: str, content: bytes = VIDEO) -> Video:
    return Video(
        format="mp4", width=64, height=64, num_frames=5, fps=16, seed=1, file_path="", index=0, url=url,
        size=len(content), sha256=sha256(content),
    )  # fmt: skip


def test_a_download_continues_where_it_was_cut_off(web: WebServer, tmp_path: Path) -> None:
    web.pages["/video"] = File(VIDEO, breaks=[100_000, 300_000])
    with Client("http://api.test", key="secret") as client:
        path = client.download(video_at(f"{web.url}/video"), tmp_path / "a.mp4")
    assert path.read_bytes() == VIDEO
    asked = [request.headers.get("range") for request in web.requests]
    assert asked[0] is None
    assert all(range_ is not None for range_ in asked[1:])
    assert len(asked) == 3
    assert not any("authorization" in request.headers for request in web.requests)


async def test_a_download_of_the_asynchronous_client_continues_too(web: WebServer, tmp_path: Path) -> None:
    web.pages["/video"] = File(VIDEO, breaks=[100_000])
    (tmp_path / "a.mp4.part").write_bytes(VIDEO[:1000])  # from a process that has ended
    async with AsyncClient("http://api.test") as client:
        path = await client.download(video_at(f"{web.url}/video"), tmp_path / "a.mp4")
    assert path.read_bytes() == VIDEO
    assert web.requests[0].headers["range"] == "bytes=1000-"


def test_a_file_that_is_not_the_services_is_not_kept(web: WebServer, tmp_path: Path) -> None:
    web.pages["/video"] = File(VIDEO[::-1])
    with Client("http://api.test") as client, pytest.raises(DownloadDamaged, match="SHA-256"):
        client.download(video_at(f"{web.url}/video"), tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []


async def test_a_video_that_was_deleted_says_so(api: Api, remote: Client, tmp_path: Path) -> None:
    accepted = await in_thread(remote.submit, request_for())
    with pytest.raises(OutputNotFound):
        await in_thread(remote.download, video_at(f"/v1/requests/{accepted.request_id}/outputs/0"), tmp_path / "a.mp4")
    assert not (tmp_path / "a.mp4.part").exists()


def test_the_key_goes_to_its_server_only(web: WebServer) -> None:
    web.pages["/v1/loras"] = lambda exchange, _count: exchange.answer(200, json.dumps(NO_LORAS).encode())
    with Client(web.url, key="secret") as client:
        client.loras()
    assert web.requests[0].headers["authorization"] == "Bearer secret"


def test_a_stream_that_always_ends_early_is_given_up() -> None:
    listening = Listening("1", Retries(0.6))
    with pytest.raises(ServerUnreachable, match="again and again"):
        for _ in range(100):
            time.sleep(listening.retries.pause(listening.cut_off()))
