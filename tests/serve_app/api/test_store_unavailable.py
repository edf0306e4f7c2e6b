"""A job store that does not answer."""

import asyncio

import pytest

from tests.client import body
from tests.fixtures.api import Api

REQUEST_ID = "b3e6e2e0-5d0c-4c3e-9d38-0d3f7f6a4b11"


@pytest.fixture
def broken(api: Api) -> Api:
    """The API over a file that is no database."""
    api.database.write_bytes(b"this is no database" * 100)
    return api


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


async def test_what_was_not_stored_is_not_announced(broken: Api) -> None:
    await broken.post(body())
    assert broken.announced.count == 0


async def test_every_client_of_a_burst_is_told(broken: Api) -> None:
    answers = await asyncio.gather(*(broken.post(body()) for _ in range(5)))
    assert {answer.status_code for answer in answers} == {503}


async def test_a_wrong_request_is_still_told_what_is_wrong_with_it(broken: Api) -> None:
    assert (await broken.post(body(loras=[]))).status_code == 400
    assert (await broken.post(body({"fps": 0}))).status_code == 422


async def test_what_needs_no_store_still_answers(broken: Api) -> None:
    for path in ("/health", "/v1/models", "/docs", "/openapi.json"):
        assert (await broken.http.get(path)).status_code == 200
