"""A job store that does not answer."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy.engine import make_url

from tests.client import body
from tests.fixtures.api import Api, on_both_databases
from tests.fixtures.store import queued
from tests.postgres_server import PostgresServer

REQUEST_ID = "b3e6e2e0-5d0c-4c3e-9d38-0d3f7f6a4b11"


def spoil(api: Api) -> None:
    """Overwrite the file of the database."""
    Path(make_url(api.database_url).database or "").write_bytes(b"this is no database" * 100)


@pytest_asyncio.fixture
async def broken(api: Api, request: pytest.FixtureRequest) -> AsyncIterator[Api]:
    """Yield the API over a file that is no database, or over a server that is down, after it has answered once."""
    await api.get("/v1/models")
    url = make_url(api.database_url)
    if url.get_backend_name() == "sqlite":
        spoil(api)
        yield api
    else:
        postgres: PostgresServer = request.getfixturevalue("postgres")
        with postgres.away():
            yield api


@on_both_databases
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/inference"),
        ("GET", f"/v1/requests/{REQUEST_ID}/status"),
        ("GET", f"/v1/requests/{REQUEST_ID}/result"),
        ("GET", f"/v1/requests/{REQUEST_ID}/outputs/0"),
        ("POST", f"/v1/requests/{REQUEST_ID}/cancel"),
    ],
)
async def test_the_client_is_told_to_try_again(broken: Api, method: str, path: str) -> None:
    answer = await broken.http.request(method, path, json=body() if path == "/v1/inference" else None)
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    error = answer.json()["detail"]["error"]
    assert error["code"] == "STORE_UNAVAILABLE"
    assert "try again" in error["message"]
    assert str(broken.directory) not in answer.text


async def test_a_service_that_never_knew_whether_it_has_keys_lets_nobody_in(api: Api) -> None:
    spoil(api)
    assert (await api.http.get("/v1/models")).status_code == 503
    assert (await api.http.get("/health")).status_code == 200


@on_both_databases
async def test_what_was_not_stored_is_not_announced(broken: Api) -> None:
    await broken.post(body())
    assert broken.announced.count == 0


@on_both_databases
async def test_every_client_of_a_burst_is_told(broken: Api) -> None:
    answers = await asyncio.gather(*(broken.post(body()) for _ in range(5)))
    assert {answer.status_code for answer in answers} == {503}


@on_both_databases
async def test_a_wrong_request_is_still_told_what_is_wrong_with_it(broken: Api) -> None:
    assert (await broken.post(body(loras=[]))).status_code == 400
    assert (await broken.post(body({"fps": 0}))).status_code == 422


@on_both_databases
async def test_what_needs_no_store_still_answers(broken: Api) -> None:
    for path in ("/health", "/v1/models", "/docs", "/openapi.json"):
        assert (await broken.http.get(path)).status_code == 200


@pytest.mark.parametrize("api_database", ["postgresql"], indirect=True)
async def test_a_server_that_comes_back_has_what_was_accepted_and_takes_more(
    api: Api, postgres: PostgresServer
) -> None:
    before = await api.submit(body())
    with postgres.away(PostgresServer.kill):
        assert (await api.post(body())).status_code == 503
        assert (await api.http.get(f"/v1/requests/{before}/status")).status_code == 503
    after = await api.submit(body())
    assert [render.request_id for render in (await api.claim(), await api.claim())] == [before, after]
    assert await queued(api.store) == []
