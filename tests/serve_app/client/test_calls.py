"""The Python client against the real API: what is asked for arrives, typed."""

import asyncio
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from serve_app.client import AsyncClient, Client, InferenceRequest, InspectionRequest, LoraItem, Wanted
from serve_app.errors import LoraNotFound, RenderFailed, RequestCanceled, RequestNotFound, WaitedTooLong
from tests.fixtures.api import UNKNOWN, Api
from tests.fixtures.renderer import rendering
from tests.serve_app.client.conftest import in_thread, request_for


async def test_a_request_goes_from_submit_to_a_file(api: Api, remote: Client, tmp_path: Path) -> None:
    async with rendering(api):
        accepted = await in_thread(remote.submit, request_for({"seed": 7}))
        assert accepted.status == "in_queue"
        status = await in_thread(remote.wait, accepted.request_id)
        assert (status.status, status.progress) == ("succeeded", 1.0)
        result = await in_thread(remote.result, accepted.request_id)
    assert result.outputs is not None
    (video,) = result.outputs.videos
    assert video.seed == 7
    path = await in_thread(remote.download, video, tmp_path / "videos" / "fox.mp4")
    assert path.read_bytes()[4:8] == b"ftyp"
    assert [left.name for left in path.parent.iterdir()] == ["fox.mp4"]
    assert (await in_thread(remote.delete, accepted.request_id)).deleted
    with pytest.raises(RequestNotFound):
        await in_thread(remote.status, accepted.request_id)


async def test_the_asynchronous_client_does_the_same(api: Api, tmp_path: Path) -> None:
    async with rendering(api), AsyncClient("http://api.test", transport=httpx2.ASGITransport(api.app)) as client:
        result = await client.render(request_for({"seed": 7}))
        assert result.outputs is not None
        path = await client.download(result.outputs.videos[0], tmp_path / "fox.mp4")
        assert path.read_bytes()[4:8] == b"ftyp"
        assert (await client.models()).models[0].id == "wan22_14b_t2v"
        assert (await client.health()).status == "healthy"
        assert (await client.delete(result.request_id)).deleted


async def test_several_renders_at_once_are_several_requests(api: Api) -> None:
    async with rendering(api), AsyncClient("http://api.test", transport=httpx2.ASGITransport(api.app)) as client:
        results = await asyncio.gather(*(client.render(request_for({"seed": seed})) for seed in range(3)))
    assert len({result.request_id for result in results}) == 3


async def test_a_refusal_is_the_services_own_error(remote: Client) -> None:
    request = request_for(loras=[{"path": "gone.safetensors", "transformer": "high"}])
    with pytest.raises(LoraNotFound, match=r"gone\.safetensors") as refused:
        await in_thread(remote.submit, request)
    assert refused.value.details == {"missing_files": ["gone.safetensors"]}
    with pytest.raises(RequestNotFound):
        await in_thread(remote.status, UNKNOWN)


async def test_a_failed_render_raises_its_own_error(api: Api, remote: Client) -> None:
    running = asyncio.create_task(in_thread(remote.render, request_for()))
    while not api.announced.count:  # noqa: ASYNC110  the API tells no event
        await asyncio.sleep(0.01)
    await api.fail(await api.claim(), RenderFailed("the fox ran away; try again"))
    with pytest.raises(RenderFailed, match="the fox ran away"):
        await running


async def test_a_wait_ends_when_its_time_is_over_and_the_request_continues(remote: Client) -> None:
    accepted = await in_thread(remote.submit, request_for())
    with pytest.raises(WaitedTooLong, match="still in_queue"):
        await in_thread(remote.wait, accepted.request_id, timeout_s=0.1)
    assert (await in_thread(remote.cancel, accepted.request_id)).status == "canceled"
    assert (await in_thread(remote.wait, accepted.request_id)).status == "canceled"


async def test_a_canceled_render_raises(api: Api, remote: Client) -> None:
    running = asyncio.create_task(in_thread(remote.render, request_for()))
    while not api.observed.requests:  # noqa: ASYNC110  the API tells no event
        await asyncio.sleep(0.01)
    await in_thread(remote.cancel, api.observed.requests[0].id)
    with pytest.raises(RequestCanceled):
        await running


async def test_files_are_inspected_by_the_service(api: Api, remote: Client) -> None:
    item = LoraItem.model_validate(request_for().loras[0].model_dump())
    inspection = await in_thread(remote.inspect, InspectionRequest(loras=[item], norms=True))
    (file,) = inspection.files
    assert file.report is not None
    assert file.report.norms


async def test_a_request_is_forecast_listed_and_posted_again(api: Api, remote: Client) -> None:
    forecast = await in_thread(remote.forecast, request_for({"width": 100}))
    assert (forecast.prompts[0].width, len(api.observed.requests)) == (96, 0)
    accepted = await in_thread(remote.submit, request_for({"prompt": "an owl", "seed": -1}))
    listed = await in_thread(remote.list, Wanted(text="owl", status=("in_queue", "in_progress"), limit=5))
    assert [one.request_id for one in listed.requests] == [accepted.request_id]
    details = await in_thread(remote.details, accepted.request_id)
    again = InferenceRequest.model_validate(details.request.model_dump(mode="json"))
    first, second = (
        await api.store.requests.get((await in_thread(remote.submit, again)).request_id),
        await api.store.requests.get(accepted.request_id),
    )
    assert first.renders[0].spec == second.renders[0].spec


async def test_a_token_arrives_as_it_is(api: Api, remote: Client) -> None:
    request = InferenceRequest.model_validate(request_for().model_dump() | {"hf_token": "hf_a_token"})
    sent: list[bytes] = []
    with Client("http://api.test", transport=httpx2.MockTransport(lambda asked: _keep(asked, sent))) as client:
        client.submit(request)
    assert b"hf_a_token" in sent[0]


def _keep(asked: httpx2.Request, sent: list[bytes]) -> httpx2.Response:
    sent.append(asked.content)
    links = dict.fromkeys(("status_url", "result_url", "cancel_url"), "/x")
    return httpx2.Response(200, json={"request_id": UNKNOWN, "status": "in_queue", "created_at": "", **links})


@pytest.mark.parametrize("module", ["serve_app.client", "serve_app.cli"])
def test_it_imports_neither_pytorch_nor_ray_nor_fastapi_nor_a_database(module: str) -> None:
    heavy = "{'torch', 'ray', 'fastapi', 'starlette', 'sqlalchemy', 'alembic', 'obstore', 'huggingface_hub'}"
    code = f"import {module}, sys; print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
