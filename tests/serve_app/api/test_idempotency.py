"""A request that is sent again under its key is the same request."""

import asyncio

import httpx
import pytest

from tests.client import body
from tests.fixtures.api import Api, Json, ServeApi, on_both_databases
from tests.fixtures.specs import MODEL

pytestmark = on_both_databases


async def post(api: Api, request: Json, key: str, **headers: str) -> httpx.Response:
    return await api.http.post("/v1/inference", json=request, headers={"Idempotency-Key": key, **headers})


async def test_the_same_key_and_body_return_the_same_request(api: Api) -> None:
    first, again = await post(api, body(), "k"), await post(api, body(), "k")
    assert (first.status_code, again.status_code) == (200, 200)
    assert again.json() == first.json()
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert (await api.store.queue(MODEL).load()).queued.renders == 1
    assert api.announced.count == 1


async def test_a_random_seed_is_drawn_once(api: Api) -> None:
    request = body({"seed": -1})
    request_id = (await post(api, request, "k")).json()["request_id"]
    before = await api.store.requests.get(request_id)
    await post(api, request, "k")
    assert await api.store.requests.get(request_id) == before


async def test_the_answer_says_how_far_the_request_is_now(api: Api) -> None:
    await post(api, body(), "k")
    await api.finish(await api.claim())
    assert (await post(api, body(), "k")).json()["status"] == "succeeded"


async def test_it_is_known_although_its_loras_are_gone(api: Api) -> None:
    first = await post(api, body(), "k")
    for path in api.lora_root.rglob("*.safetensors"):
        path.unlink()
    assert (await post(api, body(), "k")).json()["request_id"] == first.json()["request_id"]


async def test_another_body_under_the_key_is_a_conflict(api: Api) -> None:
    first = await post(api, body(), "k")
    other = await post(api, body({"seed": 7}), "k")
    assert other.status_code == httpx.codes.CONFLICT
    error = other.json()["detail"]["error"]
    assert error["code"] == "IDEMPOTENCY_CONFLICT"
    assert error["details"] == {"request_id": first.json()["request_id"], "idempotency_key": "k"}
    assert (await api.store.queue(MODEL).load()).queued.renders == 1


async def test_a_renewed_token_does_not_make_another_body(api: Api) -> None:
    first = await post(api, body(hf_token="hf_old"), "k")
    assert (await post(api, body(hf_token="hf_new"), "k")).json()["request_id"] == first.json()["request_id"]


async def test_many_at_once_are_one(api: Api) -> None:
    answers = await asyncio.gather(*(post(api, body(), "k") for _ in range(20)))
    assert len({answer.json()["request_id"] for answer in answers}) == 1
    assert (await api.store.queue(MODEL).load()).queued.renders == 1


async def test_each_tenant_has_keys_of_its_own(serve_api: ServeApi) -> None:
    async with serve_api(trust_tenant_header=True) as api:
        mine = await post(api, body(), "k", **{"X-Tenant": "me"})
        yours = await post(api, body({"seed": 7}), "k", **{"X-Tenant": "you"})
        assert mine.json()["request_id"] != yours.json()["request_id"]


async def test_a_deleted_requests_key_is_free_again(api: Api) -> None:
    first = await post(api, body(), "k")
    await api.finish(await api.claim())
    assert (await api.http.delete(f"/v1/requests/{first.json()['request_id']}")).status_code == httpx.codes.OK
    assert (await post(api, body(), "k")).json()["request_id"] != first.json()["request_id"]


@pytest.mark.parametrize("key", ["", "a b", "x" * 256])
async def test_a_key_of_a_wrong_form_is_refused(api: Api, key: str) -> None:
    answer = await post(api, body(), key)
    assert answer.status_code == httpx.codes.BAD_REQUEST
    assert answer.json()["detail"]["error"]["code"] == "HEADER_INVALID"
    assert "Idempotency-Key" in answer.json()["detail"]["error"]["message"]
    api.must_be_untouched()


async def test_observers_hear_of_a_request_once_however_often_it_is_sent(api: Api) -> None:
    headers = {"Idempotency-Key": "observed"}
    first, again = [await api.http.post("/v1/inference", json=body({}, {}), headers=headers) for _ in range(2)]
    (heard,) = api.observed.requests
    assert heard.id == first.json()["request_id"] == again.json()["request_id"]
    assert len(heard.specs) == 2
