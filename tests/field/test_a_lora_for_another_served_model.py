"""A LoRA of one served model in a request for another: the refusal names the model that takes it, and what to send."""

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.client import body
from tests.fixtures.api import Api, ServeApi
from tests.fixtures.specs import MODEL
from tests.fixtures.web_server import web_server
from tests.lantern import CARD
from tests.lantern.loras import save_lora
from tests.serve_app.loras.files import full, save

OTHER = "lantern_1b"
NAME = "lantern.safetensors"
LOCAL = {"lora_private_hosts": ["127.0.0.1"], "lora_allow_http": True}


@pytest_asyncio.fixture
async def two(serve_api: ServeApi) -> AsyncIterator[Api]:
    """Yield the API over Wan 2.2 T2V and a made-up model of one expert."""
    async with serve_api(models=[{"model": MODEL}, {"model": str(CARD)}], **LOCAL) as api:
        save_lora(api.lora_root / NAME)
        yield api


async def test_a_file_for_the_model_with_one_expert(two: Api) -> None:
    error = await two.refused(body(loras=[{"path": NAME, "transformer": "high"}]), "LORA_INVALID")
    assert error["details"]["models"] == [OTHER]
    assert f"send model: {OTHER}, without `transformer`" in error["message"]
    await two.submit({"model": OTHER, "loras": [{"path": NAME}], "prompts": [{"prompt": "a lantern"}]})


async def test_a_file_for_the_model_with_a_pair(two: Api) -> None:
    pair = body()["loras"]
    error = await two.refused(
        {"model": OTHER, "loras": [{"path": pair[0]["path"]}], "prompts": [{"prompt": "a lantern"}]}, "LORA_INVALID"
    )
    assert error["details"]["models"] == [MODEL]
    assert error["message"].endswith(f"send model: {MODEL}")


async def test_a_file_behind_an_address(two: Api) -> None:
    content = (two.lora_root / NAME).read_bytes()
    with web_server() as web:
        web.pages[f"/{NAME}"] = lambda exchange, _: exchange.answer(200, content, ETag='"1"')
        for _ in range(2):
            lora = {"path": f"{web.url}/{NAME}", "transformer": "low"}
            error = await two.refused(body(loras=[lora]), "LORA_INVALID")
            assert error["details"]["models"] == [OTHER]


async def test_inspection_tells_it_too(two: Api) -> None:
    answer = await two.http.post("/v1/loras/inspect", json={"model": MODEL, "loras": [{"path": NAME}]})
    (file,) = answer.json()["files"]
    assert file["error"]["details"]["models"] == [OTHER]


async def test_a_file_that_no_model_takes(two: Api) -> None:
    save(two.lora_root / "odd.safetensors", {f"odd.{key}": value for key, value in full().items()})
    error = await two.refused(body(loras=[{"path": "odd.safetensors", "transformer": "high"}]), "LORA_INVALID")
    assert "models" not in error["details"]


async def test_a_file_that_is_replaced_is_looked_at_again(two: Api) -> None:
    path = two.lora_root / "changing.safetensors"
    request = body(loras=[{"path": path.name, "transformer": "high"}])
    save(path, {f"odd.{key}": value for key, value in full().items()})
    assert "models" not in (await two.refused(request, "LORA_INVALID"))["details"]
    path.unlink()
    save_lora(path)
    assert (await two.refused(request, "LORA_INVALID"))["details"]["models"] == [OTHER]


async def test_a_service_of_one_model_points_nowhere(serve_api: ServeApi) -> None:
    async with serve_api() as api:
        save_lora(api.lora_root / NAME)
        error = await api.refused(body(loras=[{"path": NAME, "transformer": "high"}]), "LORA_INVALID")
        assert "models" not in error["details"]
