"""What a browser is told: which pages may call the API, and what an answer may do in it."""

import pytest

from serve_app.errors import ConfigurationInvalid
from serve_app.settings import Settings
from tests.client import body
from tests.fixtures.api import Api, ServeApi
from tests.fixtures.keys import ADMIN_KEY

APP = "https://app.example.com"
PREFLIGHT = {
    "Origin": APP,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization, content-type, idempotency-key",
}


async def test_a_page_of_a_named_origin_may_call_and_others_may_not(serve_api: ServeApi) -> None:
    async with serve_api(cors_origins=[APP], admin_key=ADMIN_KEY) as api:
        preflight = await api.http.options("/v1/inference", headers=PREFLIGHT)
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == APP
        assert "DELETE" in preflight.headers["access-control-allow-methods"]
        refused = await api.http.get("/v1/models", headers={"Origin": APP})
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == APP  # so that the page learns why
        assert "Retry-After" in refused.headers["access-control-expose-headers"]
        other = await api.http.options("/v1/inference", headers={**PREFLIGHT, "Origin": "https://elsewhere.example"})
        assert other.status_code == 400
        assert "access-control-allow-origin" not in other.headers


async def test_every_page_may_call_where_the_args_say_so(serve_api: ServeApi) -> None:
    async with serve_api(cors_origins=["*"]) as api:
        answer = await api.http.get("/v1/models", headers={"Origin": APP})
        assert answer.headers["access-control-allow-origin"] == "*"


async def test_without_the_arg_no_page_from_elsewhere_may_call(api: Api) -> None:
    assert "access-control-allow-origin" not in (await api.http.get("/v1/models", headers={"Origin": APP})).headers


@pytest.mark.parametrize("origin", ["app.example.com", "https://app.example.com/", "https://*.example.com", ""])
def test_what_is_no_origin_is_refused(origin: str) -> None:
    with pytest.raises(ConfigurationInvalid, match="cors_origins"):
        Settings.from_args({"cors_origins": [origin]})


async def test_every_answer_has_security_headers(api: Api) -> None:
    request_id = await api.submit(body())
    await api.finish(await api.claim())
    for path in ("/", "/docs", "/v1/models", "/v1/nothing", f"/v1/requests/{request_id}/outputs/0"):
        headers = (await api.http.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff", path
        assert headers["referrer-policy"] == "no-referrer", path
        assert "frame-ancestors 'none'" in headers["content-security-policy"], path
    assert headers["content-security-policy"].endswith("sandbox allow-same-origin")
