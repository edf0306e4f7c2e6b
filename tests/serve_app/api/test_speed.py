"""Speed profiles at the API: the server's default, what a request may name, and the error for what it may not."""

import pytest
from pydantic import ValidationError

from serve_app.settings import Settings
from serve_app.spec import Speed
from tests.client import body
from tests.fixtures.api import Api, ServeApi


async def test_a_request_without_a_speed_gets_the_servers(api: Api) -> None:
    (spec,) = await api.specs(body())
    assert spec.speed is Speed.EXACT


async def test_a_request_names_its_speed(api: Api) -> None:
    (spec,) = await api.specs(body(speed="fast"))
    assert spec.speed is Speed.FAST


async def test_an_unknown_speed_is_refused_with_those_there_are(api: Api) -> None:
    response = await api.http.post("/v1/inference", json=body(speed="warp"))
    assert response.status_code == 422
    assert "speed" in response.text
    assert "fast" in response.text


async def test_a_speed_that_the_server_does_not_allow_is_refused_by_name(serve_api: ServeApi) -> None:
    async with serve_api(speeds=["exact"]) as api:
        response = await api.post(body(speed="fast"))
        assert response.status_code == 400
        assert response.json()["detail"]["error"]["code"] == "SPEED_NOT_ALLOWED"
        assert "use exact" in response.text


def test_the_default_must_be_among_the_allowed() -> None:
    with pytest.raises(ValidationError, match="speed: 'fast' is not among speeds"):
        Settings(speed=Speed.FAST, speeds=(Speed.EXACT,))
