"""Probes, metrics and the state of the cluster, where parts of the service are away."""

from dataclasses import replace

import httpx
import pytest

from serve_app.errors import MetricsUnavailable
from serve_app.results import GeneratorRuntime, StartSeconds
from tests.client import body
from tests.fixtures.api import Api
from tests.fixtures.specs import MODEL

START = StartSeconds(imports=6.5, load=1.25)
CPU = GeneratorRuntime(device="cpu", dtype="float32", offload="none", pristine="host", start=START, pairs=("a", "b"))


async def test_a_live_process_says_so_whatever_is_away(api: Api) -> None:
    assert await api.get("/health/live") == {"status": "alive"}


async def test_no_dispatcher_means_not_ready(api: Api) -> None:
    answer = await api.http.get("/health/ready")
    assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
    assert answer.json()["status"] == "not_ready"
    problem = answer.json()["problem"]
    assert problem["code"] == "SERVICE_NOT_READY"
    assert MODEL in problem["message"]


async def test_a_dispatcher_makes_it_ready(api: Api) -> None:
    assert await api.store.leadership(f"dispatcher:{MODEL}").hold(30, 0)
    assert await api.get("/health/ready") == {"status": "ready", "problem": None}


async def test_metrics_that_rays_agent_does_not_answer_are_unavailable(api: Api) -> None:
    async def away() -> bytes:
        raise MetricsUnavailable("Ray's metrics agent on this node does not answer")

    api.app.state.services = replace(api.app.state.services, node_metrics=away)
    answer = await api.http.get("/metrics")
    assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
    assert answer.json()["detail"]["error"]["code"] == "METRICS_UNAVAILABLE"


async def test_the_cluster_joins_what_the_dispatcher_knows_and_what_the_store_knows(api: Api) -> None:
    request_id = await api.submit(body({}))
    await api.submit(body({}))
    await api.claim()
    api.announced.generators = {"replica": CPU, "idle": CPU}
    (model,) = (await api.get("/v1/cluster"))["models"]
    assert (model["model"], model["dispatcher"], model["queued"]) == (MODEL, "alive", 1)
    idle, at_work = model["generators"]
    assert (idle["replica"], idle["pairs"], idle["renders"]) == ("idle", ["a", "b"], [])
    assert idle["start"] == {"imports": 6.5, "load": 1.25, "place": 0.0, "warm_up": 0.0}
    assert [render["request_id"] for render in at_work["renders"]] == [request_id]


async def test_the_cluster_shows_renders_of_a_replica_that_nobody_knows(api: Api) -> None:
    request_id = await api.submit(body({}))
    await api.claim()
    (model,) = (await api.get("/v1/cluster"))["models"]
    assert model["dispatcher"] == "unknown"
    (generator,) = model["generators"]
    assert (generator["replica"], generator["device"]) == ("replica", None)
    assert [render["request_id"] for render in generator["renders"]] == [request_id]


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/v1/cluster"])
async def test_head_is_answered_as_get_is(api: Api, path: str) -> None:
    head, get = await api.http.head(path), await api.http.get(path)
    assert (head.status_code, head.content) == (get.status_code, b"")
