"""API keys over time: when they begin and cease to count, and what links to outputs are worth."""

import asyncio
from time import time
from urllib.parse import parse_qs, urlsplit

from serve_app.access.keys import Scope
from tests.client import body
from tests.fixtures.api import Api, ServeApi, on_both_databases
from tests.fixtures.keys import ADMIN_KEY, Headers, make_key

pytestmark = on_both_databases

BRIEF = {"key_cache_s": 0.001}


async def test_the_first_key_closes_the_service(serve_api: ServeApi) -> None:
    async with serve_api(**BRIEF) as api:
        assert (await api.http.get("/v1/models")).status_code == 200
        key = await make_key(api.store, "team-a")
        assert (await api.http.get("/v1/models")).status_code == 401
        assert (await api.http.get("/v1/models", headers=key)).status_code == 200


async def test_open_means_open(serve_api: ServeApi) -> None:
    async with serve_api(**BRIEF, open=True) as api:
        await make_key(api.store, "team-a")
        assert (await api.http.get("/v1/models")).status_code == 200


async def test_revoking_the_last_key_opens_nothing(serve_api: ServeApi) -> None:
    async with serve_api(**BRIEF) as api:
        await make_key(api.store, "team-a", revoked=True)
        assert (await api.http.get("/v1/models")).status_code == 401


async def test_a_revoked_key_counts_no_longer_than_the_cache_keeps_it(serve_api: ServeApi) -> None:
    async with serve_api(**BRIEF) as api:
        key = await make_key(api.store, "team-a")
        assert (await api.http.get("/v1/models", headers=key)).status_code == 200
        (kept,) = await api.store.keys.all()
        await api.store.keys.revoke(kept.id)
        assert (await api.http.get("/v1/models", headers=key)).status_code == 401


async def test_a_key_expires_also_while_it_is_cached(serve_api: ServeApi) -> None:
    async with serve_api(key_cache_s=300) as api:
        end = time() + 5  # a busy machine may take a second to ask
        key = await make_key(api.store, "team-a", expires_at=end)
        assert (await api.http.get("/v1/models", headers=key)).status_code == 200
        await asyncio.sleep(end - time())
        assert (await api.http.get("/v1/models", headers=key)).status_code == 401


async def test_the_use_of_a_key_is_noted(serve_api: ServeApi) -> None:
    async with serve_api() as api:
        key = await make_key(api.store, "team-a")
        await api.http.get("/v1/models", headers=key)
        for _ in range(1000):  # it is noted behind the answer
            (kept,) = await api.store.keys.all("team-a")
            if kept.last_used_at is not None:
                break
            await asyncio.sleep(0.01)
        assert kept.last_used_at is not None
        assert kept.last_used_at >= kept.created_at


async def test_the_links_of_a_result_are_signed_and_open_that_output_alone(serve_api: ServeApi) -> None:
    async with serve_api(admin_key=ADMIN_KEY) as api:
        key = await make_key(api.store, "team-a", Scope.READ, Scope.SUBMIT)
        first, second = [await finished(api, key) for _ in range(2)]
        answer = await api.http.get(first)
        assert (answer.status_code, answer.content) == (200, b"a video")
        query = urlsplit(first).query
        assert (await api.http.get(f"{urlsplit(second).path}?{query}")).status_code == 403
        later = query.replace(parse_qs(query)["expires"][0], str(int(time()) + 10**6))
        assert (await api.http.get(f"{urlsplit(first).path}?{later}")).status_code == 403
        status = urlsplit(first).path.replace("/outputs/0", "/status")
        assert (await api.http.get(f"{status}?{query}")).status_code == 401
        assert (await api.http.delete(f"{urlsplit(first).path}?{query}")).status_code == 401


async def finished(api: Api, key: Headers) -> str:
    """Submit and render; the link to the video."""
    headers = dict(key)
    submitted = await api.http.post("/v1/inference", json=body(), headers=headers)
    await api.finish(await api.claim())
    result = await api.http.get(submitted.json()["result_url"], headers=headers)
    link: str = result.json()["outputs"]["videos"][0]["url"]
    return link
