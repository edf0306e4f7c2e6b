"""A service of two models: a request names its model, and everything about it follows that model's card."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from serve_app.jobs.coordination import dispatcher_of
from tests.client import body
from tests.fixtures.api import Api, ServeApi
from tests.fixtures.specs import MODEL
from tests.fixtures.store import queued
from tests.lantern import CARD
from tests.lantern.loras import save_lora

OTHER = "lantern_1b"
LANTERN = {"model": OTHER, "loras": [{"path": "lantern.safetensors"}], "prompts": [{"prompt": "a lantern"}]}


@pytest_asyncio.fixture
async def two(serve_api: ServeApi) -> AsyncIterator[Api]:
    """Yield the API over Wan 2.2 T2V and the made-up model, whose queue takes two."""
    async with serve_api(models=[{"model": MODEL}, {"model": str(CARD), "max_queued": 2}]) as api:
        save_lora(api.lora_root / "lantern.safetensors")
        yield api


async def test_each_request_goes_to_the_queue_of_its_model(two: Api) -> None:
    first, second = await two.submit(body()), await two.submit(LANTERN)
    assert [len(await queued(two.store, model)) for model in (MODEL, OTHER)] == [1, 1]
    (spec,) = [render.spec for render in (await two.store.requests.get(second)).renders]
    assert (spec.model, spec.width, spec.height, spec.num_frames, spec.sample_steps) == (OTHER, 144, 96, 17, 3)
    assert [(await two.status(request))["model"] for request in (first, second)] == [MODEL, OTHER]
    assert (await two.result(second))["model"] == OTHER


async def test_an_unknown_model_is_refused_with_those_that_are_served(two: Api) -> None:
    error = await two.refused(body(model="wan99"), "MODEL_NOT_FOUND")
    assert error["details"] == {"supported_models": [MODEL, OTHER]}
    assert f"'{MODEL}', '{OTHER}'" in error["message"]


async def test_a_lora_is_checked_against_the_card_of_its_request(two: Api) -> None:
    await two.refused({**LANTERN, "loras": body()["loras"]}, "MOE_FORMAT_NOT_SUPPORTED")
    await two.refused({**LANTERN, "loras": [{"path": body()["loras"][0]["path"]}]}, "LORA_INVALID")
    await two.refused(body(loras=[{"path": "lantern.safetensors", "transformer": "high"}]), "LORA_INVALID")


async def test_the_limits_of_one_model_leave_the_other_open(two: Api) -> None:
    await two.submit({**LANTERN, "prompts": [{"prompt": "a lantern"}] * 2})
    answer = await two.post(LANTERN)
    assert (answer.status_code, answer.json()["detail"]["error"]["code"]) == (429, "QUEUE_FULL")
    await two.submit(body({}, {}, {}))


async def test_nothing_of_one_models_queue_is_ahead_of_anothers(two: Api) -> None:
    await two.submit(body(*[{}] * 20))
    status = await two.status(await two.submit(LANTERN))
    assert status["queue_position"] == 0


async def test_both_are_listed_and_described(two: Api) -> None:
    models = (await two.get("/v1/models"))["models"]
    assert [(model["id"], model["default_width"]) for model in models] == [(MODEL, 1024), (OTHER, 150)]
    health = await two.get("/health")
    assert (health["status"], health["model"]) == ("healthy", MODEL)
    assert [model["model"] for model in health["models"]] == [MODEL, OTHER]
    schemas = (await two.get("/openapi.json"))["components"]["schemas"]
    assert [example["model"] for example in schemas["InferenceRequest"]["examples"]] == [MODEL, OTHER]
    assert f"`{OTHER}`: 12 when omitted." in schemas["PromptItem"]["properties"]["fps"]["description"]


async def test_the_health_of_each_model_is_its_own(two: Api) -> None:
    await two.store.leadership(dispatcher_of(OTHER)).hold(60, 1)
    await two.submit(body({}, {}))
    health = (await two.get("/health"))["models"]
    assert [(model["status"], model["queued"], model["running"]) for model in health] == [
        ("unhealthy", 2, 0),  # nobody dispatches its renders
        ("healthy", 0, 0),
    ]


@pytest.mark.parametrize(("path", "fits"), [("lantern.safetensors", [OTHER]), (body()["loras"][0]["path"], [MODEL])])
async def test_inspection_tells_which_models_could_use_a_file(two: Api, path: str, fits: list[str]) -> None:
    answer = await two.http.post("/v1/loras/inspect", json={"loras": [{"path": path}]})
    (file,) = answer.json()["files"]
    assert (file["models"], file["error"]) == (fits, None)


async def test_inspection_for_one_model_says_why_that_model_cannot_use_a_file(two: Api) -> None:
    asked = {"model": MODEL, "loras": [{"path": "lantern.safetensors"}]}
    (file,) = (await two.http.post("/v1/loras/inspect", json=asked)).json()["files"]
    assert (file["models"], file["error"]["code"]) == ([], "LORA_INVALID")
    answer = await two.http.post("/v1/loras/inspect", json={**asked, "model": "wan99"})
    assert answer.json()["detail"]["error"]["code"] == "MODEL_NOT_FOUND"
