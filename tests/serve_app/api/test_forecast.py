"""Position and ETA of what waits, and of what would be sent."""

import asyncio
from collections.abc import Mapping

import pytest

from serve_app.api.forecast import Forecaster
from serve_app.costs import CostKey, MeasuredCost
from serve_app.jobs.store import JobStore
from tests.client import body
from tests.fixtures.api import LEASE_S, Api, ServeApi, on_both_databases

pytestmark = on_both_databases


async def test_a_measured_cost_makes_the_eta(serve_api: ServeApi) -> None:
    async with serve_api() as api:
        await api.submit(body())
        await api.finish(await api.claim(), measured=MeasuredCost(step_s=2.0, other_s=1.0))
    async with serve_api() as api:  # a restart forgets nothing
        first = await api.submit(body({"sample_steps": 10}))
        second = await api.submit(body({"sample_steps": 20}, {"sample_steps": 20}))
        assert (await api.status(first))["eta_seconds"] == pytest.approx(21)
        assert (await api.status(second))["eta_seconds"] == pytest.approx(21 + 41 + 41)
        claim = await api.claim()
        await api.store.claims.renew(claim, 5, LEASE_S)
        assert (await api.status(first))["eta_seconds"] == pytest.approx(10.5)
        assert (await api.status(second))["eta_seconds"] == pytest.approx(10.5 + 41 + 41)


async def test_priority_jumps_the_own_line(api: Api) -> None:
    waiting = [await api.submit(body()) for _ in range(3)]
    urgent = await api.submit(body(priority="high"))
    assert (await api.status(urgent))["queue_position"] == 0
    assert [(await api.status(request_id))["queue_position"] for request_id in waiting] == [1, 2, 3]
    idle = await api.submit(body(priority="low"))
    assert (await api.status(idle))["queue_position"] == 4


async def test_another_tenants_flood_delays_by_its_share_only(serve_api: ServeApi) -> None:
    async with serve_api(trust_tenant_header=True, tenant_weights={"me": 2.0}) as api:
        flood = body(*({"seed": seed} for seed in range(100)))
        assert (await api.http.post("/v1/inference", json=flood, headers={"X-Tenant": "flood"})).status_code == 200
        mine = body({}, {}, {}, {})
        ids = [
            (await api.http.post("/v1/inference", json=mine, headers={"X-Tenant": "me"})).json()["request_id"]
            for _ in range(2)
        ]
        api.http.headers["X-Tenant"] = "me"  # another tenant's requests are unknown
        assert (await api.status(ids[0]))["queue_position"] == 0
        assert (await api.status(ids[1]))["queue_position"] == 4 + 2


async def test_a_request_that_has_ended_has_no_eta(api: Api) -> None:
    request_id = await api.submit(body())
    await api.finish(await api.claim())
    assert (await api.status(request_id))["eta_seconds"] is None


async def test_a_forecast_says_what_a_request_would_cost_and_accepts_nothing(api: Api) -> None:
    sent = body({"width": 100, "height": 70}, {"num_frames": 10})
    answer = await api.http.post("/v1/forecast", json=sent)
    assert answer.status_code == 200, answer.text
    api.must_be_untouched()
    told = answer.json()
    assert [(each["index"], each["width"], each["height"], each["num_frames"]) for each in told["prompts"]] == [
        (0, 96, 64, 5),
        (1, 64, 64, 9),
    ]
    assert told["seconds"] == pytest.approx(sum(each["seconds"] for each in told["prompts"]), abs=0.02)
    assert told["queue_position"] == 0
    request_id = await api.submit(sent)
    status = await api.status(request_id)
    assert (told["eta_seconds"], told["queue_position"]) == (status["eta_seconds"], status["queue_position"])
    behind = (await api.http.post("/v1/forecast", json=sent)).json()
    assert behind["queue_position"] == 2
    assert behind["eta_seconds"] == pytest.approx(2 * told["eta_seconds"], abs=0.05)


async def test_a_forecast_warns_of_a_size_that_the_model_is_not_made_for(api: Api) -> None:
    large = body({"width": 2048, "height": 1152, "num_frames": 81}, {})
    prompts = (await api.http.post("/v1/forecast", json=large)).json()["prompts"]
    (warning,) = prompts[0]["warnings"]
    assert "1280x720 with 81 frames" in warning
    assert prompts[1]["warnings"] == []


async def test_a_forecast_refuses_what_a_post_refuses(api: Api) -> None:
    for wrong in (body(model="other"), body(loras=[]), body({"width": 1})):
        asked, posted = [await api.http.post(path, json=wrong) for path in ("/v1/forecast", "/v1/inference")]
        assert (asked.status_code, asked.json()) == (posted.status_code, posted.json())


async def test_an_unknown_priority_is_refused(api: Api) -> None:
    (problem,) = await api.invalid(body(priority="urgent"))
    assert problem["loc"] == ["body", "priority"]


async def test_a_crowd_reads_the_costs_once(api: Api) -> None:
    store = CountingStore(api.database_url)
    try:
        forecaster = Forecaster(api.plan, store)
        models = await asyncio.gather(*(forecaster.costs() for _ in range(16)))
    finally:
        await store.close()
    assert store.reads == 1
    assert all(model is models[0] for model in models)


class CountingStore(JobStore):
    reads = 0

    async def costs(self, deployment: str) -> Mapping[CostKey, MeasuredCost]:
        self.reads += 1
        return await super().costs(deployment)
