"""Where the tenant header is trusted, a tenant's requests are unknown to every other tenant."""

import httpx
import pytest

from tests.client import body
from tests.fixtures.api import UNKNOWN, Api, ServeApi, on_both_databases

pytestmark = on_both_databases

CALLS = [
    ("GET", "/v1/requests/{}/status"),
    ("GET", "/v1/requests/{}/result"),
    ("GET", "/v1/requests/{}/outputs/0"),
    ("HEAD", "/v1/requests/{}/outputs/0"),
    ("POST", "/v1/requests/{}/cancel"),
    ("DELETE", "/v1/requests/{}"),
]
MINE = {"X-Tenant": "mine"}
OTHERS = [{"X-Tenant": "other"}, {}]  # without the header: the tenant that is called default


async def submit(api: Api) -> str:
    answer = await api.http.post("/v1/inference", json=body(), headers=MINE)
    request_id: str = answer.raise_for_status().json()["request_id"]
    return request_id


def without(answer: httpx.Response, request_id: str) -> tuple[int, str]:
    """Return the answer, but for the id that was asked for."""
    return answer.status_code, answer.text.replace(request_id, "")


@pytest.mark.parametrize("headers", OTHERS, ids=["other", "none"])
@pytest.mark.parametrize("ended", [False, True], ids=["queued", "ended"])
async def test_another_tenants_request_is_answered_as_an_unknown_one(
    serve_api: ServeApi, headers: dict[str, str], *, ended: bool
) -> None:
    async with serve_api(trust_tenant_header=True) as api:
        request_id = await submit(api)
        if ended:
            await api.finish(await api.claim())
        for method, path in CALLS:
            foreign = await api.http.request(method, path.format(request_id), headers=headers)
            unknown = await api.http.request(method, path.format(UNKNOWN), headers=headers)
            assert foreign.status_code == 404
            assert without(foreign, request_id) == without(unknown, UNKNOWN)
        # Nothing was canceled or deleted by any of that.
        status = (await api.http.get(f"/v1/requests/{request_id}/status", headers=MINE)).json()["status"]
        assert status == ("succeeded" if ended else "in_queue")


async def test_its_own_tenant_may_do_everything(serve_api: ServeApi) -> None:
    async with serve_api(trust_tenant_header=True) as api:
        request_id = await submit(api)
        await api.finish(await api.claim())
        for method, path in CALLS:
            answer = await api.http.request(method, path.format(request_id), headers=MINE)
            assert answer.status_code == 200, answer.text
        gone = await api.http.get(f"/v1/requests/{request_id}/status", headers=MINE)
        assert gone.status_code == 404


async def test_where_the_header_is_not_trusted_everyone_sees_every_request(api: Api) -> None:
    request_id = await submit(api)
    for headers in (MINE, *OTHERS):
        answer = await api.http.get(f"/v1/requests/{request_id}/status", headers=headers)
        assert answer.status_code == 200
