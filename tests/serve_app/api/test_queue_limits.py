"""Who may not join the queue any more, and what they are told."""

import httpx
import pytest

from tests.client import body
from tests.fixtures.api import Api, Json, ServeApi, on_both_databases

pytestmark = on_both_databases


def refusal(answer: httpx.Response, code: str) -> Json:
    assert answer.status_code == httpx.codes.TOO_MANY_REQUESTS, answer.text
    error: Json = answer.json()["detail"]["error"]
    assert error["code"] == code
    return error


async def test_the_queue_takes_as_many_renders_as_it_may_and_says_when_there_is_room(serve_api: ServeApi) -> None:
    async with serve_api(max_queued=3) as api:
        await api.submit(body({}, {}))
        answer = await api.post(body({}, {}))
        error = refusal(answer, "QUEUE_FULL")
        retry_after_s = int(answer.headers["retry-after"])
        assert error["details"] == {
            "queued": 2,
            "limit": 3,
            "limit_name": "max_queued",
            "retry_after_s": retry_after_s,
        }
        assert int(answer.headers["retry-after"]) >= 1
        await api.submit(body())  # what fits still gets in
        assert api.announced.count == 2
        await api.claim()
        await api.submit(body())


async def test_more_than_the_queue_takes_at_all_is_told_so(serve_api: ServeApi) -> None:
    async with serve_api(max_queued=1) as api:
        answer = await api.post(body({}, {}))
        assert "fewer" in refusal(answer, "QUEUE_FULL")["message"]
        assert "retry-after" not in answer.headers


async def test_one_tenants_full_line_leaves_the_others_theirs(serve_api: ServeApi) -> None:
    async with serve_api(max_queued_per_tenant=1, trust_tenant_header=True) as api:
        mine = {"X-Tenant": "me"}
        assert (await api.http.post("/v1/inference", json=body(), headers=mine)).status_code == httpx.codes.OK
        refusal(await api.http.post("/v1/inference", json=body(), headers=mine), "TENANT_QUEUE_FULL")
        for other in ({"X-Tenant": "you"}, {}):
            assert (await api.http.post("/v1/inference", json=body(), headers=other)).status_code == httpx.codes.OK


async def test_nobody_joins_to_wait_longer_than_anybody_may(serve_api: ServeApi) -> None:
    async with serve_api(max_wait_s=10) as api:
        await api.submit(body({"width": 1024, "height": 1024, "num_frames": 201}))
        error = refusal(await api.post(body()), "WAIT_TOO_LONG")
        assert error["details"]["expected_wait_s"] > error["details"]["limit_s"] == 10
        assert error["details"]["retry_after_s"] >= 1


async def test_without_the_arg_the_header_means_nothing(api: Api) -> None:
    answer = await api.http.post("/v1/inference", json=body(), headers={"X-Tenant": "me"})
    assert (await api.store.requests.get(answer.json()["request_id"])).line.tenant == "default"


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "a/b"])
async def test_a_tenant_of_a_wrong_form_is_refused(serve_api: ServeApi, name: str) -> None:
    async with serve_api(trust_tenant_header=True) as api:
        answer = await api.http.post("/v1/inference", json=body(), headers={"X-Tenant": name})
        assert answer.status_code == httpx.codes.BAD_REQUEST
        assert answer.json()["detail"]["error"]["code"] == "HEADER_INVALID"
        api.must_be_untouched()
