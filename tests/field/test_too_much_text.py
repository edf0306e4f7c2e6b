"""Megabytes of text are refused while they are read, by their length or by their field's name, and cost nobody time."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serve_app.models import limits
from tests.client import body, pair
from tests.fixtures.api import Api, Json, ServeApi
from tests.fixtures.each import each

MIB = 1024**2
PATHS = ["/v1/inference", "/v1/loras/inspect"]
JSON = {"Content-Type": "application/json"}
LENGTHS: dict[str, tuple[int, Callable[[str], Json]]] = {
    "model": (limits.NAME_LENGTH, lambda text: body(model=text)),
    "trigger_word": (limits.TRIGGER_LENGTH, lambda text: body(trigger_word=text)),
    "hf_token": (limits.TOKEN_LENGTH, lambda text: body(hf_token=text)),
    "loras.0.path": (limits.PATH_LENGTH, lambda text: body(loras=[{"path": text, "transformer": "low"}])),
    "prompts.0.prompt": (limits.PROMPT_LENGTH, lambda text: body({"prompt": text})),
    "prompts.0.neg": (limits.PROMPT_LENGTH, lambda text: body({"neg": text})),
    "prompts.0.trigger_word": (limits.TRIGGER_LENGTH, lambda text: body({"trigger_word": text})),
}


async def must_be_too_large(api: Api, answer: Any, most: int = 4 * MIB) -> None:
    assert answer.status_code == 413, answer.text
    error = answer.json()["detail"]["error"]
    assert (error["code"], error["details"]) == ("BODY_TOO_LARGE", {"max_body_bytes": most})
    assert "max_body_bytes" in error["message"]
    api.must_be_untouched()


@each("path", PATHS)
@each("length", [4 * MIB + 1, 20 * MIB, 2**70])
async def test_is_refused_by_its_announced_length_without_being_read(path: str, length: int, api: Api) -> None:
    async def never_read() -> AsyncIterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    headers = {**JSON, "Content-Length": str(length)}
    await must_be_too_large(api, await api.http.post(path, content=never_read(), headers=headers))


@each("path", PATHS)
@each("chunk", [1000, 64 * 1024, 5 * MIB])
async def test_is_refused_while_it_is_read_where_it_announces_none(path: str, chunk: int, api: Api) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += chunk
            yield b" " * chunk

    await must_be_too_large(api, await api.http.post(path, content=endless(), headers=JSON))
    assert sent <= 4 * MIB + chunk


@pytest.mark.slow
@each("path", PATHS)
async def test_a_bomb_of_gzip_is_refused_while_it_is_inflated(path: str, api: Api) -> None:
    bomb = gzip.compress(b" " * (300 * MIB), 9)
    assert len(bomb) < MIB
    headers = {**JSON, "Content-Encoding": "gzip"}
    await must_be_too_large(api, await asyncio.wait_for(api.http.post(path, content=bomb, headers=headers), 20))


async def test_the_limit_is_an_arg(serve_api: ServeApi) -> None:
    request = json.dumps(body()).encode()
    async with serve_api(max_body_bytes=2048) as api:
        padded = request + b" " * (2048 - len(request))
        assert (await api.http.post("/v1/inference", content=padded, headers=JSON)).status_code == 200
        answer = await api.http.post("/v1/inference", content=padded + b" ", headers=JSON)
        assert answer.status_code == 413
        assert answer.json()["detail"]["error"]["details"] == {"max_body_bytes": 2048}


async def test_a_large_request_within_the_limit_is_accepted(api: Api) -> None:
    await api.submit(body(*[{"prompt": "x" * 2000, "neg": "y" * 2000}] * 1000))


@each("field", LENGTHS)
async def test_a_longer_text_than_its_field_takes_is_refused_by_the_field_s_name(field: str, api: Api) -> None:
    most, request = LENGTHS[field]
    where = ["body", *(int(step) if step.isdigit() else step for step in field.split("."))]
    for text in ("x" * (most + 1), "🦊" * (most + 1), "x" * MIB):
        (problem,) = await api.invalid(request(text))
        assert problem["loc"] == where
        assert f"at most {most} " in problem["msg"]


@each("field", LENGTHS)
async def test_the_longest_text_that_a_field_takes_is_taken(field: str, api: Api) -> None:
    most, request = LENGTHS[field]
    answer = await api.post(request("x" * most))
    assert answer.status_code != 422, answer.text
    assert len(answer.text) < 8000


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    count=st.integers(0, limits.PROMPT_LENGTH // len("[trigger]")),
    word=st.integers(1, limits.TRIGGER_LENGTH),
    recipe=st.sampled_from(["reference", "preview"]),
    placeholder=st.sampled_from(["[trigger]", "[name]"]),
)
async def test_no_trigger_word_makes_more_of_a_prompt_than_a_prompt_may_have(
    count: int, word: int, recipe: str, placeholder: str, api: Api
) -> None:
    request = body({"prompt": placeholder * count}, trigger_word="x" * word, recipe=recipe)
    answer = await api.post(request)
    replaced = placeholder == "[trigger]" or recipe == "preview"
    if replaced and count * word > limits.PROMPT_LENGTH:
        error = answer.json()["detail"]["error"]
        assert (answer.status_code, error["code"]) == (400, "PROMPT_TOO_LONG")
        assert error["details"] == {"prompt_index": 0, "length": count * word, "most": limits.PROMPT_LENGTH}
    else:
        record = await api.store.requests.get(answer.json()["request_id"])
        assert len(record.renders[0].spec.prompt) <= limits.PROMPT_LENGTH


@each("count", [17, 100, 10_000])
async def test_more_loras_than_a_request_takes_are_refused(count: int, api: Api) -> None:
    (problem,) = await api.invalid(body(loras=[pair()[0]] * count))
    assert (problem["loc"], problem["type"]) == (["body", "loras"], "too_long")


async def test_every_text_and_list_of_a_request_is_bounded_in_the_description(api: Api) -> None:
    schemas = (await api.get("/openapi.json"))["components"]["schemas"]
    unbounded = [
        f"{name}.{field}"
        for name in ("InferenceRequest", "LoraItem", "PromptItem", "InspectionRequest")
        for field, schema in schemas[name]["properties"].items()
        for variant in schema.get("anyOf", [schema])
        if (variant.get("type") == "string" and "maxLength" not in variant)
        or (variant.get("type") == "array" and "maxItems" not in variant)
    ]
    assert [name for name in unbounded if "ctrl_img" not in name] == []
