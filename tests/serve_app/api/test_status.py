"""What a client reads about a request while it waits."""

import re
from datetime import UTC, datetime, timedelta

import pytest

from serve_app.errors import OutOfMemory
from tests.client import body
from tests.fixtures.api import LEASE_S, UNKNOWN, Api, Json, on_both_databases
from tests.fixtures.specs import MODEL

pytestmark = on_both_databases

RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
VIEWS = ["status", "result", "outputs/0"]


def moment(text: str) -> datetime:
    assert RFC_3339.fullmatch(text), text
    return datetime.fromisoformat(text)


async def test_a_request_is_in_queue_until_its_first_render_starts(api: Api) -> None:
    request_id = await api.submit(body())
    status = await api.status(request_id)
    assert moment(status.pop("created_at")) <= datetime.now(UTC)
    assert status.pop("eta_seconds") > 0
    expected: Json = {
        "request_id": request_id,
        "model": MODEL,
        "status": "in_queue",
        "progress": 0,
        "queue_position": 0,
    }
    unknown = dict.fromkeys(("started_at", "finished_at", "error", "error_code"))
    assert {key: value for key, value in status.items() if value is not None} == expected
    assert unknown.items() <= status.items()


async def test_progress_is_the_share_of_steps_done(api: Api) -> None:
    request_id = await api.submit(body({"sample_steps": 4}, {"sample_steps": 6}))
    claim = await api.claim()
    for steps, progress in ((0, 0), (1, 0.1), (4, 0.4)):
        await api.store.claims.renew(claim, steps, LEASE_S)
        status = await api.status(request_id)
        assert (status["status"], status["progress"]) == ("in_progress", progress)
    await api.finish(claim)
    status = await api.status(request_id)
    assert (status["status"], status["progress"], status["finished_at"]) == ("in_progress", 0.4, None)


async def test_a_request_has_succeeded_when_its_last_render_has(api: Api) -> None:
    request_id = await api.submit(body({}, {}))
    await api.finish(await api.claim())
    await api.finish(await api.claim())
    status = await api.status(request_id)
    assert (status["status"], status["progress"], status["queue_position"]) == ("succeeded", 1, None)
    assert (status["error"], status["error_code"]) == (None, None)


async def test_a_failed_request_says_why(api: Api) -> None:
    request_id = await api.submit(body())
    await api.fail(await api.claim(), OutOfMemory("the GPU is too small; try fewer frames"))
    status = await api.status(request_id)
    assert (status["status"], status["error_code"]) == ("failed", "OUT_OF_MEMORY")
    assert status["error"] == "the GPU is too small; try fewer frames"
    assert moment(status["finished_at"]) >= moment(status["started_at"])


async def test_a_lost_render_is_in_queue_again_without_progress(api: Api) -> None:
    request_id = await api.submit(body())
    claim = await api.claim()
    await api.store.claims.renew(claim, 1, LEASE_S)
    await api.store.claims.release(claim, max_attempts=3)
    status = await api.status(request_id)
    assert (status["status"], status["progress"], status["queue_position"]) == ("in_queue", 0, 0)


async def test_the_queue_position_counts_the_renders_ahead(api: Api) -> None:
    first, second = await api.submit(body({}, {})), await api.submit(body({}, {}))

    async def positions() -> list[int | None]:
        return [(await api.status(each))["queue_position"] for each in (first, second)]

    assert await positions() == [0, 2]
    await api.claim()
    assert await positions() == [0, 1]
    await api.claim()
    assert await positions() == [None, 0]
    await api.store.requests.cancel(second)
    assert await positions() == [None, None]


async def test_times_are_in_order_and_in_utc_with_one_z(api: Api) -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=1)  # answers have whole milliseconds, rounded down
    posted = (await api.post(body())).json()
    await api.finish(await api.claim())
    status = await api.status(posted["request_id"])
    result = await api.result(posted["request_id"])
    times = [moment(status[name]) for name in ("created_at", "started_at", "finished_at")]
    in_order = [before, *times, datetime.now(UTC)]
    assert in_order == sorted(in_order)
    assert posted["created_at"] == status["created_at"] == result["created_at"]
    assert result["finished_at"] == status["finished_at"]


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(
    "request_id",
    [UNKNOWN, "0", "no-such-id", "%00", "%F0%9F%A6%8A", "a" * 1000, "' OR 1=1"],
)
async def test_an_unknown_request_is_not_found(api: Api, request_id: str, view: str) -> None:
    await api.submit(body())
    answer = await api.http.get(f"/v1/requests/{request_id}/{view}")
    assert answer.status_code == 404
    error = answer.json()["detail"]["error"]
    assert (error["code"], error["message"].split(":")[0]) == ("REQUEST_NOT_FOUND", "Request not found")


@pytest.mark.parametrize("view", ["status", "result"])
async def test_an_id_may_be_spelled_in_upper_case(api: Api, view: str) -> None:
    request_id = await api.submit(body())
    assert (await api.get(f"/v1/requests/{request_id.upper()}/{view}"))["request_id"] == request_id
