"""`Prefer: wait=N` on a POST: the result in the answer, where it comes in time."""

import asyncio

import httpx
import pytest

from serve_app.api.events import hub
from tests.client import body
from tests.fixtures.api import Api, ServeApi
from tests.fixtures.renderer import rendering


@pytest.fixture(autouse=True)
def _quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "LOOK_S", 0.01)


async def post(api: Api, prefer: str, **headers: str) -> httpx.Response:
    return await api.http.post("/v1/inference", json=body(), headers={"Prefer": prefer, **headers})


@pytest.mark.parametrize("prefer", ["wait=20", "respond-async, wait=20", 'WAIT="20"', "wait"])
async def test_a_result_that_comes_in_time_is_the_answer(api: Api, prefer: str) -> None:
    async with rendering(api):
        answer = await post(api, prefer)
    assert answer.headers["Preference-Applied"] == f"wait={60 if prefer == 'wait' else 20}"
    result = answer.json()
    assert result == await api.result(result["request_id"])
    assert (await api.http.get(result["outputs"]["videos"][0]["url"])).status_code == 200


@pytest.mark.parametrize("prefer", ["wait=0", "wait=1", "respond-async", "handling=strict"])
async def test_else_the_answer_is_the_usual_one(api: Api, prefer: str) -> None:
    answer = await post(api, prefer)
    assert "Preference-Applied" not in answer.headers
    assert answer.json()["status"] == "in_queue"
    assert answer.json()["status_url"].endswith("/status")


async def test_a_request_that_fails_in_time_is_answered_with_its_failure(api: Api) -> None:
    posting = asyncio.create_task(post(api, "wait=20"))
    while not (await api.get("/v1/requests"))["requests"]:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.01)
    await api.fail(await api.claim())
    assert (await posting).json()["error_code"] == "RENDER_FAILED"


async def test_the_same_request_waits_again(api: Api) -> None:
    first = await post(api, "wait=0", **{"Idempotency-Key": "one"})
    await api.finish(await api.claim())
    second = await post(api, "wait=5", **{"Idempotency-Key": "one"})
    assert second.headers["Idempotency-Replayed"] == "true"
    assert second.json() == await api.result(first.json()["request_id"])


async def test_who_finds_no_place_to_wait_is_accepted(serve_api: ServeApi) -> None:
    async with serve_api(max_listeners=1) as api:
        waiting = asyncio.create_task(post(api, "wait=20"))
        while not api.app.state.listeners._of_sender:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
        assert (await post(api, "wait=20")).json()["status"] == "in_queue"
        await api.finish(await api.claim())
        assert (await waiting).json()["status"] == "succeeded"


@pytest.mark.parametrize("prefer", ["wait=61", "wait=-1", "wait=soon", "wait=", "wait=1.5"])
async def test_a_wait_that_is_no_such_number_is_refused(api: Api, prefer: str) -> None:
    answer = await post(api, prefer)
    assert (answer.status_code, answer.json()["detail"]["error"]["code"]) == (400, "HEADER_INVALID")
    api.must_be_untouched()
