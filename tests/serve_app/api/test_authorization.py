"""The authorization matrix: every endpoint times every kind of key. A route without an entry here fails."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from time import time

import httpx
import pytest
import pytest_asyncio
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Mount, Route

from serve_app.access.keys import Scope
from serve_app.api.guard import is_public
from tests.client import body
from tests.fixtures.api import UNKNOWN, Api, ServeApi
from tests.fixtures.keys import ADMIN_KEY, Headers, bearer, make_key

PUBLIC = None
MATRIX: dict[tuple[str, str], Scope | None] = {
    ("GET", "/health"): PUBLIC,
    ("GET", "/health/live"): PUBLIC,
    ("GET", "/health/ready"): PUBLIC,
    ("GET", "/metrics"): Scope.ADMIN,
    ("GET", "/v1/cluster"): Scope.ADMIN,
    ("GET", "/v1/models"): Scope.READ,
    ("POST", "/v1/inference"): Scope.SUBMIT,
    ("POST", "/v1/forecast"): Scope.READ,
    ("GET", "/v1/requests"): Scope.READ,
    ("GET", "/v1/requests/{request_id}"): Scope.READ,
    ("GET", "/v1/requests/{request_id}/status"): Scope.READ,
    ("GET", "/v1/requests/{request_id}/events"): Scope.READ,
    ("GET", "/v1/requests/{request_id}/result"): Scope.READ,
    ("GET", "/v1/requests/{request_id}/outputs/{index}"): Scope.READ,
    ("GET", "/v1/requests/{request_id}/webhooks"): Scope.READ,
    ("POST", "/v1/requests/{request_id}/cancel"): Scope.SUBMIT,
    ("DELETE", "/v1/requests/{request_id}"): Scope.SUBMIT,
    ("GET", "/v1/loras"): Scope.READ,
    ("PUT", "/v1/loras/{path}"): Scope.SUBMIT,
    ("POST", "/v1/loras/inspect"): Scope.READ,
    ("GET", "/v1/usage"): Scope.READ,
    ("POST", "/v1/videos"): Scope.SUBMIT,
    ("GET", "/v1/videos"): Scope.READ,
    ("GET", "/v1/videos/{request_id}"): Scope.READ,
    ("DELETE", "/v1/videos/{request_id}"): Scope.SUBMIT,
    ("GET", "/v1/videos/{request_id}/content"): Scope.READ,
}
# What is served beside the endpoints; whoever adds such a path says here that everyone may read it.
NOT_ENDPOINTS = {  # with an example
    "/": "/",
    "/page/{digest}/{name:path}": "/page/0123456789abcdef/main.js",
    "/docs": "/docs",
    "/docs/assets": "/docs/assets/swagger-ui.css",
    "/openapi.json": "/openapi.json",
}

CLOSED = [operation for operation, scope in MATRIX.items() if scope is not PUBLIC]
OF_A_REQUEST = [operation for operation in CLOSED if "{request_id}" in operation[1]]
WRONG = "wan_0123456789abcdef_" + "x" * 43


@dataclass(frozen=True, kw_only=True)
class Keys:
    mine: Headers
    other: Headers  # of another tenant
    only: dict[Scope, Headers]
    revoked: Headers
    expired: Headers
    admin: Headers


@pytest_asyncio.fixture
async def closed(serve_api: ServeApi) -> AsyncIterator[Api]:
    """Yield the API with an admin key in the environment, and everything on that may be off."""
    async with serve_api(admin_key=ADMIN_KEY, uploads=True) as api:
        yield api


@pytest_asyncio.fixture
async def keys(closed: Api) -> Keys:
    return Keys(
        mine=await make_key(closed.store, "mine"),
        other=await make_key(closed.store, "other"),
        only={scope: await make_key(closed.store, "mine", scope) for scope in Scope},
        revoked=await make_key(closed.store, "mine", revoked=True),
        expired=await make_key(closed.store, "mine", expires_at=time() - 1),
        admin=bearer(ADMIN_KEY),
    )


async def ask(api: Api, operation: tuple[str, str], headers: Headers, request_id: str = UNKNOWN) -> httpx.Response:
    """Call an endpoint; what it takes beside the id of a request is left out, so it may answer 422."""
    method, path = operation
    filled = path.replace("{request_id}", request_id).replace("{index}", "0").replace("{path}", "a.safetensors")
    return await api.http.request(method, filled, headers=headers)


def code(answer: httpx.Response) -> str:
    content = answer.json()
    found: str = content.get("detail", content)["error"]["code"]  # OpenAI's shape has no detail
    return found


def routes_of(routes: list[BaseRoute]) -> set[tuple[str, str]]:
    return {
        (method, route.path.replace("{path:lora}", "{path}"))
        for route in routes
        if isinstance(route, APIRoute)
        for method in (route.methods or set()) - {"HEAD"}
    }


async def test_every_route_has_an_entry(api: Api) -> None:
    declared = [*api.app.api_routes, *api.app.routes]  # type: ignore[attr-defined]  # of DocumentedApi
    assert {(method, path) for method, path in routes_of(declared) if path not in NOT_ENDPOINTS} == MATRIX.keys()
    beside = {route.path for route in api.app.routes if isinstance(route, Route | Mount)}
    assert beside - {path for _, path in MATRIX} <= NOT_ENDPOINTS.keys()
    assert all(is_public(path) for path in NOT_ENDPOINTS.values())
    documented = (await api.get("/openapi.json"))["paths"]
    assert {(m.upper(), path) for path, operations in documented.items() for m in operations} <= MATRIX.keys()


async def test_without_a_good_key_nothing_is_answered(closed: Api, keys: Keys) -> None:
    of_mine = keys.mine["Authorization"].removeprefix("Bearer ")
    bad = {
        "wrong": bearer(WRONG),
        "wrong secret": bearer(f"{of_mine[:-43]}{'x' * 43}"),
        "revoked": keys.revoked,
        "expired": keys.expired,
        "no form": bearer("hello"),
    }
    for operation in CLOSED:
        answer = await ask(closed, operation, {})
        assert (answer.status_code, code(answer)) == (401, "KEY_REQUIRED"), operation
        assert answer.headers["www-authenticate"] == 'Bearer realm="wan-lora"'
        texts = set()
        for kind, headers in bad.items():
            answer = await ask(closed, operation, headers)
            assert (answer.status_code, code(answer)) == (401, "KEY_INVALID"), (operation, kind)
            texts.add(answer.text)
        assert len(texts) == 1  # so that nobody learns which of these a key is


async def test_a_key_needs_the_scope_of_the_endpoint(closed: Api, keys: Keys) -> None:
    for operation in CLOSED:
        for scope, headers in keys.only.items():
            answer = await ask(closed, operation, headers)
            if scope in (MATRIX[operation], Scope.ADMIN):
                assert answer.status_code not in (401, 403), (operation, scope)
            else:
                assert (answer.status_code, code(answer)) == (403, "SCOPE_REQUIRED"), (operation, scope)


async def test_another_tenants_request_is_answered_as_an_unknown_one(closed: Api, keys: Keys) -> None:
    submitted = await closed.http.post("/v1/inference", json=body(), headers=keys.mine)
    request_id = submitted.raise_for_status().json()["request_id"]
    await closed.finish(await closed.claim())
    for operation in OF_A_REQUEST:
        foreign = await ask(closed, operation, keys.other, request_id)
        unknown = await ask(closed, operation, keys.other, UNKNOWN)
        assert foreign.status_code == 404, operation
        assert foreign.text.replace(request_id, "") == unknown.text.replace(UNKNOWN, ""), operation


@pytest.mark.parametrize("who", ["mine", "admin"])
async def test_the_owner_and_an_admin_may_do_everything(closed: Api, keys: Keys, who: str) -> None:
    headers = {"mine": keys.mine, "admin": keys.admin}[who]
    for operation in OF_A_REQUEST:
        submitted = await closed.http.post("/v1/inference", json=body(), headers=keys.mine)
        request_id = submitted.raise_for_status().json()["request_id"]
        await closed.finish(await closed.claim())
        answer = await ask(closed, operation, headers, request_id)
        assert answer.status_code not in (401, 403, 404), operation


async def test_what_is_public_needs_no_key(closed: Api) -> None:
    for path in [path for (_, path), scope in MATRIX.items() if scope is PUBLIC] + list(NOT_ENDPOINTS.values()):
        assert (await closed.http.get(path)).status_code not in (401, 403), path


async def test_a_path_that_nobody_thought_of_is_closed(closed: Api, keys: Keys) -> None:
    assert (await closed.http.get("/v1/nothing")).status_code == 401
    assert (await closed.http.get("/v1/nothing", headers=keys.mine)).status_code == 404
    assert (await closed.http.post("/health")).status_code == 401


async def test_an_admin_may_act_as_a_tenant_and_a_tenant_as_no_other(closed: Api, keys: Keys) -> None:
    as_mine = {**keys.admin, "X-Tenant": "mine"}
    submitted = await closed.http.post("/v1/inference", json=body(), headers=as_mine)
    status = f"/v1/requests/{submitted.raise_for_status().json()['request_id']}/status"
    assert (await closed.http.get(status, headers=keys.mine)).status_code == 200
    assert (await closed.http.get(status, headers={**keys.admin, "X-Tenant": "other"})).status_code == 404
    foreign = await closed.http.get(status, headers={**keys.other, "X-Tenant": "mine"})
    assert (foreign.status_code, code(foreign)) == (400, "HEADER_INVALID")
