"""Ending a request before it is finished."""

import pytest

from serve_app.jobs.endings import RenderEnd
from serve_app.jobs.states import RenderState
from tests.client import body
from tests.fixtures.api import LEASE_S, UNKNOWN, Api, Json, on_both_databases
from tests.fixtures.specs import MODEL
from tests.fixtures.store import queued

pytestmark = on_both_databases


async def cancel(api: Api, request_id: str) -> Json:
    answer = await api.http.post(f"/v1/requests/{request_id}/cancel")
    assert answer.status_code == 200, answer.text
    status: Json = answer.json()
    return status


async def test_a_queued_request_is_canceled_at_once(api: Api) -> None:
    request_id = await api.submit(body({}, {}))
    status = await cancel(api, request_id)
    assert (status["status"], status["queue_position"], status["error"]) == ("canceled", None, None)
    assert status["finished_at"] is not None
    assert await queued(api.store) == []
    assert (await api.result(request_id))["outputs"] == {"images": [], "videos": []}
    assert api.observed.ends == [RenderEnd(MODEL, RenderState.CANCELED, None)] * 2


async def test_canceling_again_changes_nothing(api: Api) -> None:
    request_id = await api.submit(body())
    assert await cancel(api, request_id) == await cancel(api, request_id) == await api.status(request_id)


async def test_a_running_render_is_told_to_stop_and_the_request_ends_with_it(api: Api) -> None:
    request_id = await api.submit(body({}, {}))
    claim = await api.claim()
    for _ in range(2):
        status = await cancel(api, request_id)
        assert (status["status"], status["queue_position"]) == ("in_progress", None)
    assert await api.store.claims.renew(claim, 1, LEASE_S) is True
    await api.store.claims.cancel(claim)
    assert (await api.status(request_id))["status"] == "canceled"


async def test_what_was_finished_before_stays(api: Api) -> None:
    request_id = await api.submit(body({}, {}))
    await api.finish(await api.claim(), b"a survivor")
    assert (await cancel(api, request_id))["status"] == "canceled"
    (video,) = (await api.result(request_id))["outputs"]["videos"]
    assert (await api.http.get(video["url"])).content == b"a survivor"


@pytest.mark.parametrize("end", [Api.finish, Api.fail])
async def test_a_request_that_has_ended_stays_as_it_is(api: Api, end: type) -> None:
    request_id = await api.submit(body())
    await end(api, await api.claim())
    before = await api.status(request_id)
    assert before["status"] in ("succeeded", "failed")
    assert await cancel(api, request_id) == before


async def test_other_requests_continue(api: Api) -> None:
    first, second = await api.submit(body()), await api.submit(body())
    await cancel(api, first)
    status = await api.status(second)
    assert (status["status"], status["queue_position"]) == ("in_queue", 0)


@pytest.mark.parametrize("request_id", [UNKNOWN, "no-such-id"])
async def test_an_unknown_request_cannot_be_canceled(api: Api, request_id: str) -> None:
    answer = await api.http.post(f"/v1/requests/{request_id}/cancel")
    assert answer.status_code == 404
    assert answer.json()["detail"]["error"]["code"] == "REQUEST_NOT_FOUND"
    assert answer.json()["detail"]["error"]["details"] == {"request_id": request_id}
