"""Limits of tenants: what each may use, what is refused, and what `GET /v1/usage` says of it."""

from dataclasses import replace
from typing import Any

import httpx
import pytest

from tests.client import body
from tests.fixtures.api import Api, ServeApi, on_both_databases
from tests.fixtures.keys import ADMIN_KEY, make_key

SMALL, LARGE = {"X-Tenant": "small"}, {"X-Tenant": "large"}


def limited(**of_all: Any) -> dict[str, Any]:
    """Return args with limits of every tenant, which do not count for the large one."""
    return {"trust_tenant_header": True, "limits": of_all, "tenant_limits": {"large": dict.fromkeys(of_all, 10**9)}}


def error(answer: httpx.Response) -> dict[str, Any]:
    found: dict[str, Any] = answer.json()["detail"]["error"]
    return found


async def post(api: Api, headers: dict[str, str], **fields: Any) -> httpx.Response:
    prompt = {"prompt": "a fox", "width": 256, "height": 128, "num_frames": 17, "sample_steps": 8, **fields}
    return await api.http.post("/v1/inference", json=body(prompts=[prompt]), headers=headers)


@pytest.mark.parametrize(
    ("name", "limit", "fields"),
    [
        ("max_pixels", 256 * 128, {"height": 256}),
        ("max_frames", 17, {"num_frames": 21}),
        ("max_steps", 8, {"sample_steps": 9}),
    ],
)
async def test_a_render_beyond_the_tenants_size_is_refused(
    serve_api: ServeApi, name: str, limit: int, fields: dict[str, int]
) -> None:
    async with serve_api(**limited(**{name: limit})) as api:
        assert (await post(api, SMALL)).status_code == 200
        refused = await post(api, SMALL, **fields)
        assert (refused.status_code, error(refused)["code"]) == (400, "RENDER_TOO_LARGE")
        assert error(refused)["details"]["limit_name"] == name
        assert error(refused)["details"]["limit"] == limit
        assert (await post(api, LARGE, **fields)).status_code == 200


@on_both_databases
async def test_a_tenants_queue_is_bounded_over_all_models(serve_api: ServeApi) -> None:
    async with serve_api(**limited(max_queued=1)) as api:
        assert (await post(api, SMALL)).status_code == 200
        refused = await post(api, SMALL)
        assert (refused.status_code, error(refused)["code"]) == (429, "TENANT_QUEUE_FULL")
        assert error(refused)["details"]["limit_name"] == "max_queued"
        assert int(refused.headers["retry-after"]) > 0
        assert [(await post(api, LARGE)).status_code for _ in range(2)] == [200, 200]


@on_both_databases
async def test_gpu_seconds_count_as_predicted_before_and_as_measured_after(serve_api: ServeApi) -> None:
    async with serve_api(trust_tenant_header=True) as api:
        await post(api, SMALL)
        waiting = await get_usage(api, SMALL)
        each_s = waiting["gpu_seconds"]["reserved"]
        assert each_s > 0
        assert (waiting["queued"], waiting["running"], waiting["gpu_seconds"]["today"]) == (1, 0, 0)
        claim = await api.claim()
        running = await get_usage(api, SMALL)
        assert (running["queued"], running["running"], running["gpu_seconds"]["reserved"]) == (0, 1, each_s)
        await api.finish(replace(claim, claimed_at=claim.claimed_at - 100))  # it took so long
        ended = await get_usage(api, SMALL)
        assert (ended["running"], ended["renders_today"], ended["gpu_seconds"]["reserved"]) == (0, 1, 0)
        assert 100 <= ended["gpu_seconds"]["today"] < 160
        assert (await get_usage(api, LARGE))["gpu_seconds"]["today"] == 0
    async with serve_api(**limited(gpu_seconds_per_day=160 + each_s)) as api:
        assert (await post(api, SMALL)).status_code == 200
        left = (await get_usage(api, SMALL))["gpu_seconds"]["left"]
        refused = await api.http.post("/v1/inference", json=prompts(int(left / each_s) + 1), headers=SMALL)
        assert (refused.status_code, error(refused)["code"]) == (429, "GPU_TIME_EXHAUSTED")
        assert error(refused)["details"]["limit_name"] == "gpu_seconds_per_day"
        assert 0 < int(refused.headers["retry-after"]) <= 86_400
        assert (await post(api, LARGE)).status_code == 200


async def test_a_render_over_several_gpus_uses_the_seconds_of_all(serve_api: ServeApi) -> None:
    async with serve_api(trust_tenant_header=True) as alone:
        await post(alone, SMALL)
        of_one = (await get_usage(alone, SMALL))["gpu_seconds"]["reserved"]
    async with serve_api(trust_tenant_header=True, gpus_per_generator=2) as api:
        assert (await get_usage(api, SMALL))["gpu_seconds"]["reserved"] == pytest.approx(2 * of_one, abs=0.01)
        claim = await api.claim()
        await api.finish(replace(claim, claimed_at=claim.claimed_at - 100, gpus=2))
        assert 200 <= (await get_usage(api, SMALL))["gpu_seconds"]["today"] < 320


async def test_what_is_more_than_a_day_allows_need_not_be_tried_again(serve_api: ServeApi) -> None:
    async with serve_api(**limited(gpu_seconds_per_day=0.001)) as api:
        refused = await post(api, SMALL)
        assert (refused.status_code, error(refused)["code"]) == (429, "GPU_TIME_EXHAUSTED")
        assert "retry-after" not in refused.headers


async def test_a_tenant_that_calls_too_often_learns_when_to_come_again(serve_api: ServeApi) -> None:
    async with serve_api(**limited(requests_per_s=0.01, burst=2)) as api:
        answers = [await api.http.get("/v1/models", headers=SMALL) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert [answer.headers["ratelimit-policy"] for answer in answers] == ['"requests_per_s";q=2;w=200'] * 3
        assert answers[0].headers["ratelimit"] == '"requests_per_s";r=1;t=100'
        assert (error(answers[2])["code"], error(answers[2])["details"]["limit_name"]) == (
            "RATE_EXCEEDED",
            "requests_per_s",
        )
        assert 0 < int(answers[2].headers["retry-after"]) <= 100
        assert (await api.http.get("/v1/models", headers=LARGE)).status_code == 200
        assert (await api.http.get("/health", headers=SMALL)).status_code == 200  # probes are nobody's


async def test_all_keys_of_a_tenant_share_its_rate_and_signed_links_are_free(serve_api: ServeApi) -> None:
    async with serve_api(admin_key=ADMIN_KEY, limits={"requests_per_s": 0.01, "burst": 3}) as api:
        first, second = [await make_key(api.store, "team-a") for _ in range(2)]
        request_id = (await api.http.post("/v1/inference", json=body(), headers=first)).json()["request_id"]
        await api.finish(await api.claim())
        result = await api.http.get(f"/v1/requests/{request_id}/result", headers=second)
        link = result.json()["outputs"]["videos"][0]["url"]
        assert (await api.http.get("/v1/models", headers=first)).status_code == 200
        assert (await api.http.get("/v1/models", headers=second)).status_code == 429
        assert [(await api.http.get(link)).status_code for _ in range(4)] == [200] * 4


async def get_usage(api: Api, headers: dict[str, str]) -> dict[str, Any]:
    answer = await api.http.get("/v1/usage", headers=headers)
    found: dict[str, Any] = answer.raise_for_status().json()
    return found


def prompts(count: int) -> dict[str, Any]:
    prompt = {"prompt": "a fox", "width": 256, "height": 128, "num_frames": 17, "sample_steps": 8}
    return body(prompts=[prompt] * count)
