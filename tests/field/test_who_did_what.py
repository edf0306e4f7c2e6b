"""One line in the log for each POST, cancel and DELETE: who, which request, which verdict; never what was written."""

import json
import logging
import time
from typing import Any

import pytest

from tests.client import Client, body, pair
from tests.fixtures.api import UNKNOWN, Api, ServeApi
from tests.service_process import ServiceProcess

SECRET = "SeCrEtOfAcLiEnT"  # noqa: S105 - what no line may hold


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if " from " in record.getMessage()]


async def test_what_is_accepted_is_logged_with_its_id(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    request_id = await api.submit(body())
    assert lines(caplog) == [f"POST /v1/inference from 127.0.0.1 (default): {request_id}, 200"]


async def test_cancel_and_delete_are_told_with_the_id(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    request_id = await api.submit(body())
    caplog.clear()
    for method, path in (("DELETE", ""), ("POST", "/cancel"), ("DELETE", ""), ("DELETE", "")):
        await api.http.request(method, f"/v1/requests/{request_id}{path}")
    one, who = "/v1/requests/{request_id}", f"from 127.0.0.1 (default): {request_id}"
    assert lines(caplog) == [
        f"DELETE {one} {who}, 409 REQUEST_NOT_ENDED",
        f"POST {one}/cancel {who}, 200",
        f"DELETE {one} {who}, 200",
        f"DELETE {one} {who}, 404 REQUEST_NOT_FOUND",
    ]


@pytest.mark.parametrize(
    ("request_body", "verdict"),
    [
        (body(model="other"), "400 MODEL_NOT_FOUND"),
        (body(loras=[]), "400 LORA_FILE_REQUIRED"),
        (body(loras=[{**pair()[0], "path": "absent"}]), "400 LORA_NOT_FOUND"),
        (body({"width": 1}), "422 greater_than_equal"),
        ([], "422 model_attributes_type"),
    ],
)
async def test_a_refusal_is_reported_with_its_code(
    request_body: Any, verdict: str, api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    await api.post(request_body)
    assert lines(caplog) == [f"POST /v1/inference from 127.0.0.1 (default): -, {verdict}"]


@pytest.mark.parametrize(
    ("headers", "content", "verdict"),
    [
        ({"Content-Type": "application/json", "Content-Length": "99999999"}, b"{}", "413 BODY_TOO_LARGE"),
        ({"Content-Type": "text/plain"}, b"{}", "415 MEDIA_TYPE_NOT_SUPPORTED"),
        ({"Content-Type": "application/json"}, b"\xff", "415 ENCODING_NOT_SUPPORTED"),
        ({"Content-Type": "application/json"}, b"{", "422 json_invalid"),
    ],
)
async def test_a_body_that_is_not_read_is_told(
    headers: dict[str, str], content: bytes, verdict: str, api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    await api.http.post("/v1/inference", content=content, headers=headers)
    (line,) = lines(caplog)
    assert line.endswith(f"-, {verdict}")


async def test_a_tenant_is_informed(serve_api: ServeApi, caplog: pytest.LogCaptureFixture) -> None:
    async with serve_api(trust_tenant_header=True) as api:
        for tenant in ("team-a", "a b"):
            headers = {"Content-Type": "application/json", "X-Tenant": tenant}
            await api.http.post("/v1/inference", content=json.dumps(body(model="x")), headers=headers)
    assert [line.partition(" from ")[2] for line in lines(caplog)] == [
        "127.0.0.1 (team-a): -, 400 MODEL_NOT_FOUND",
        "127.0.0.1 (-): -, 400 HEADER_INVALID",
    ]


async def test_reading_is_not_told(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    for method in ("GET", "HEAD", "OPTIONS"):
        for path in ("/health", "/v1/models", f"/v1/requests/{UNKNOWN}/status", "/nowhere"):
            await api.http.request(method, path)
    assert lines(caplog) == []


async def test_every_kind_of_post_is_logged(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    await api.http.post("/v1/loras/inspect", json={"loras": [pair()[0]]})
    await api.http.post("/nowhere")
    await api.http.put("/v1/inference")
    assert lines(caplog) == [
        "POST /v1/loras/inspect from 127.0.0.1 (default): -, 200",
        "POST /nowhere from 127.0.0.1 (-): -, 404 PATH_NOT_FOUND",
        "PUT /v1/inference from 127.0.0.1 (-): -, 405 METHOD_NOT_ALLOWED",
    ]


async def test_nothing_of_a_body_or_a_query_is_logged(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    prompts = {"prompt": SECRET, "neg": SECRET, "trigger_word": SECRET}
    lora = {"path": f"https://user:{SECRET}@127.0.0.1/a.safetensors?{SECRET}", "transformer": "low"}
    for request in (
        body(prompts, hf_token=SECRET, trigger_word=SECRET),
        body(prompts, hf_token=SECRET, loras=[lora]),
        body({**prompts, "width": SECRET}, hf_token=[SECRET], model=SECRET),
        body(**{SECRET: 1}),
    ):
        await api.http.post(f"/v1/inference?token={SECRET}", json=request)
        await api.http.post("/v1/inference", content=json.dumps(request)[:-2], headers={"Content-Type": f"x/{SECRET}"})
    assert len(lines(caplog)) == 8
    of_service = [
        record.getMessage() for record in caplog.records if record.name.startswith("ray.serve")
    ]  # httpx tells addresses
    assert [line for line in of_service if SECRET in line] == []


@pytest.mark.parametrize("text", ["%0AINFO: forged", "%0D%0A", "%1B[31m", "a" * 5000, "%E2%80%A8", "%00"])
async def test_no_text_of_a_client_begins_another_line(text: str, api: Api, caplog: pytest.LogCaptureFixture) -> None:
    await api.http.post(f"/v1/requests/{text}/cancel")
    await api.http.post(f"/v1/nowhere/{text}")
    for line in lines(caplog):
        assert line.isascii()
        assert line.isprintable()
        assert len(line) < 400
    assert len(lines(caplog)) == 2


def test_a_running_service_writes_them(client: Client, service: ServiceProcess) -> None:
    request_id = client.submit(body())
    client.http.post(f"/v1/requests/{request_id}/cancel")
    client.wait(request_id)
    client.http.delete(f"/v1/requests/{request_id}")
    path = "/v1/requests/{request_id}"
    for line in (f"POST /v1/inference from 127.0.0.1 (default): {request_id}, 200", f"DELETE {path} from 127.0.0.1"):
        deadline = time.monotonic() + 10
        while line not in service.log.read_text():
            assert time.monotonic() < deadline, service.log.read_text()[-4000:]
            time.sleep(0.1)
