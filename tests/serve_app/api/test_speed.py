"""Speed profiles at the API: the server's default, what a request may name, and the error for what it may not."""

from typing import Any

import pytest
from pydantic import ValidationError

from serve_app.costs import CostKey
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


async def test_turbo_is_refused_unless_the_server_allows_it(serve_api: ServeApi) -> None:
    async with serve_api() as api:
        error = await api.refused(body(speed="turbo"), "SPEED_NOT_ALLOWED")
        assert error["details"]["allowed"] == ["exact", "fast"]
    async with serve_api(speeds=["exact", "turbo"]) as api:
        (spec,) = await api.specs(body(speed="turbo"))
        assert (spec.speed, spec.step_cache) == ("turbo", None)


async def test_the_step_cache_is_pinned_with_the_render_it_is_for(serve_api: ServeApi) -> None:
    async with serve_api(speeds=["exact", "turbo"], turbo={"step_cache": 0.2}) as api:
        exact, turbo = [(await api.specs(body(speed=speed)))[0] for speed in ("exact", "turbo")]
        assert (exact.step_cache, turbo.step_cache) == (None, 0.2)
        assert CostKey.of(exact, api.plan.card) != CostKey.of(turbo, api.plan.card)
        assert api.plan.cost_name.endswith("-cache0.2")


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ({"turbo": {"step_cache": 0.2}}, "turbo.step_cache: nothing uses it"),
        (
            {"turbo": {"step_cache": 0.2}, "speeds": ("exact", "turbo"), "gpus_per_generator": 2},
            "turbo.step_cache: GPUs that share a render",
        ),
        ({"turbo": {"step_cache": 1}}, "turbo.step_cache\n"),
    ],
)
def test_a_step_cache_that_could_not_work_is_refused(args: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        Settings.model_validate(args)
