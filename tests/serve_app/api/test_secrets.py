"""A token that a client sends is in no answer, no file and no log."""

import logging
from collections.abc import Callable
from typing import Any

import pytest

from serve_app.errors import RenderFailed
from tests.client import body
from tests.fixtures.api import Api

TOKEN = "hf_SeCrEtToKeNoFaClIeNt"  # noqa: S105 - the secret whose way is followed

Spoil = Callable[[dict[str, Any]], Any]


def files_with(api: Api, text: str) -> list[str]:
    return [str(path) for path in api.directory.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


async def test_the_token_of_an_accepted_request_is_kept_nowhere(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    prompts: list[dict[str, str]] = [{"prompt": "a fox in the snow"}, {}]
    posted = await api.post(body(*prompts, hf_token=TOKEN))
    assert posted.status_code == 200
    root = f"/v1/requests/{posted.json()['request_id']}"
    await api.finish(await api.claim())
    await api.fail(await api.claim(), RenderFailed("no luck"))
    answers = [posted, *[await api.http.get(f"{root}/{view}") for view in ("status", "result", "outputs/0")]]
    answers.append(await api.http.post(f"{root}/cancel"))
    assert [answer.status_code for answer in answers] == [200] * 5
    assert not [answer.text for answer in answers if TOKEN in answer.text]
    assert files_with(api, prompts[0]["prompt"])
    assert files_with(api, TOKEN) == []
    assert TOKEN not in caplog.text


@pytest.mark.parametrize(
    "spoil",
    [
        lambda request: {**request, "model": "other"},
        lambda request: {**request, "loras": []},
        lambda request: {**request, "loras": request["loras"] * 2},
        lambda request: {**request, "loras": [{"path": "absent", "transformer": "low"}]},
        lambda request: {**request, "hf_token": [TOKEN]},
        lambda request: {**request, "hf_token": {"token": TOKEN}},
        lambda request: {**request, "token": TOKEN},
        lambda request: {**request, "prompts": [{"prompt": "x", "hf_token": TOKEN, "width": TOKEN}]},
        lambda request: {**request, "loras": [{"path": "x", "transformer": TOKEN, "network_multiplier": TOKEN}]},
        lambda request: {**request, "prompts": TOKEN},
        lambda request: [request],
        lambda request: TOKEN,
    ],
    ids=range(12),
)
async def test_the_token_of_a_refused_request_appears_nowhere(
    api: Api, caplog: pytest.LogCaptureFixture, spoil: Spoil
) -> None:
    caplog.set_level(logging.DEBUG)
    answer = await api.post(spoil(body(hf_token=TOKEN)))
    assert answer.status_code in (400, 422)
    assert TOKEN not in answer.text
    assert files_with(api, TOKEN) == []
    assert TOKEN not in caplog.text


@pytest.mark.parametrize("cut", [1, 20])
async def test_the_token_in_a_body_that_is_no_json_is_not_told(api: Api, cut: int) -> None:
    answer = await api.http.post(
        "/v1/inference", content=f'{{"hf_token": "{TOKEN}"}}'[:-cut], headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 422
    assert TOKEN[:4] not in answer.text


async def test_the_signature_in_an_address_is_not_repeated(api: Api) -> None:
    address = f"https://127.0.0.1/a.safetensors?X-Signature={TOKEN}"
    loras = [{"path": address, "transformer": "high"}]
    refused = await api.post(body(loras=loras))
    inspected = await api.http.post("/v1/loras/inspect", json={"loras": loras})
    assert refused.json()["detail"]["error"]["code"] == "LORA_PATH_REFUSED"
    assert inspected.json()["files"][0]["error"]["code"] == "LORA_PATH_REFUSED"
    assert TOKEN not in refused.text + inspected.text
