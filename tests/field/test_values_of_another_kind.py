"""A value of another kind than its field's is refused by the field's name, not turned into one that fits."""

from typing import Any

import httpx
import pytest

from tests.client import body, pair
from tests.fixtures.api import Api, Json, on_both_databases
from tests.fixtures.each import each

WHOLE = ["width", "height", "seed", "sample_steps", "num_frames", "fps"]
NUMBERS = ["guidance_scale", "shift"]
TEXTS = ["prompt", "neg", "trigger_word"]
NO_NUMBER: list[Any] = [True, False, "7", "64", "1.0", "", " 64", "0x40", [], [64], {}, {"value": 64}]
NO_TEXT: list[Any] = [True, 1, 1.5, [], ["a fox"], {}]
NO_FLAG: list[Any] = [0, 1, 0.0, 1.0, "true", "false", "yes", "on", "", [], {}, None]


async def must_be_named(api: Api, request: Any, *where: Any) -> None:
    problems = await api.invalid(request)
    assert {tuple(problem["loc"]) for problem in problems} == {("body", *where)}


@each("field", [*WHOLE, *NUMBERS])
@each("value", NO_NUMBER)
async def test_what_is_no_number(field: str, value: Any, api: Api) -> None:
    await must_be_named(api, body({field: value}), "prompts", 0, field)


@each("value", NO_NUMBER)
async def test_what_is_no_multiplier(value: Any, api: Api) -> None:
    await must_be_named(api, body(loras=[{**pair()[0], "network_multiplier": value}]), "loras", 0, "network_multiplier")


@each("field", TEXTS)
@each("value", NO_TEXT)
async def test_what_is_no_text(field: str, value: Any, api: Api) -> None:
    await must_be_named(api, body({field: value}), "prompts", 0, field)


@each("field", ["model", "trigger_word", "hf_token", "recipe", "priority"])
@each("value", NO_TEXT)
async def test_what_is_no_text_of_the_request(field: str, value: Any, api: Api) -> None:
    await must_be_named(api, body(**{field: value}), field)


@each("field", ["path", "transformer"])
@each("value", NO_TEXT)
async def test_what_is_no_text_of_a_lora(field: str, value: Any, api: Api) -> None:
    await must_be_named(api, body(loras=[{**pair()[0], field: value}]), "loras", 0, field)


@each("value", NO_FLAG)
async def test_what_is_no_truth_value(value: Any, api: Api) -> None:
    await must_be_named(api, body(strict=value), "strict")
    answer = await api.http.post("/v1/loras/inspect", json={"loras": [pair()[0]], "norms": value})
    assert answer.status_code == 422
    assert [problem["loc"] for problem in answer.json()["detail"]] == [["body", "norms"]]


@each("field", ["loras", "prompts"])
@each("value", [None, 1, True, "", "text", {}, {"0": {}}])
async def test_what_is_no_list(field: str, value: Any, api: Api) -> None:
    await must_be_named(api, {**body(), field: value}, field)


@each("field", ["loras", "prompts"])
@each("value", [None, 1, True, "text", [], [["prompt", "a fox"]]])
async def test_what_is_no_object(field: str, value: Any, api: Api) -> None:
    await must_be_named(api, {**body(), field: [value]}, field, 0)


@each("value", [64, 64.0, 6.4e1])
async def test_a_whole_number_may_be_written_with_a_point(value: float, api: Api) -> None:
    (spec,) = await api.specs(body(dict.fromkeys(("width", "height", "seed", "sample_steps"), value)))
    assert (spec.width, spec.height, spec.seed, spec.sample_steps) == (64, 64, 64, 64)
    assert type(spec.seed) is int


@each("value", [1, 1.0, 0])
async def test_a_number_may_be_written_without_one(value: float, api: Api) -> None:
    (spec,) = await api.specs(body({"guidance_scale": value}))
    assert spec.guidance_scale == value


async def test_the_limits_of_a_number_in_the_description_are_those_that_hold(api: Api) -> None:
    schemas = (await api.get("/openapi.json"))["components"]["schemas"]
    for field in WHOLE:
        limits: Json = schemas["PromptItem"]["properties"][field]["anyOf"][0]
        assert limits["type"] == "integer"
        for edge, beyond in ((limits["minimum"], -1), (limits["maximum"], 1)):
            assert type(edge) is int or edge == int(edge) < 2**53
            await must_be_named(api, body({field: int(edge) + beyond}), "prompts", 0, field)
    for field in WHOLE:
        limits = schemas["PromptItem"]["properties"][field]["anyOf"][0]
        await api.submit(body({field: int(limits["minimum"])}, {field: int(limits["maximum"])}))


@each("index", ["+0", "-0", "00", "0.0", "%200", "0%20", "0_0", "1_0", "0x0", "٠", "１", "true", ""])
async def test_an_index_of_an_output_in_another_spelling(index: str, api: Api) -> None:
    request_id = await api.submit(body(*[{}] * 11))
    for _ in range(11):
        await api.finish(await api.claim())
    assert (await api.http.get(f"/v1/requests/{request_id}/outputs/0")).status_code == 200
    answer = await api.http.get(f"/v1/requests/{request_id}/outputs/{index}")
    assert answer.status_code in ((422,) if index else (404, 307)), answer.text


@each("index", ["1", "-1", "999", "9" * 4000])
async def test_an_index_that_is_none_is_not_found(index: str, api: Api) -> None:
    request_id = await api.submit(body())
    await api.finish(await api.claim())
    answer = await api.http.get(f"/v1/requests/{request_id}/outputs/{index}")
    assert answer.status_code == 404
    assert answer.json()["detail"]["error"]["code"] == "OUTPUT_NOT_FOUND"


@each(
    "spell",
    [
        lambda i: i.replace("-", ""),
        "{{{}}}".format,
        "urn:uuid:{}".format,
        "{}%20".format,
        "{}%0A".format,
        lambda i: i.replace("-", "%2D-", 1),
    ],
)
async def test_an_id_in_another_spelling_is_none(spell: Any, api: Api) -> None:
    request_id = await api.submit(body())
    answer = await api.http.get(f"/v1/requests/{spell(request_id)}/status")
    assert answer.status_code == 404
    assert answer.json()["detail"]["error"]["code"] == "REQUEST_NOT_FOUND"


@on_both_databases
@pytest.mark.parametrize("text", ["a \x00 fox", "\x00", "\ufffe\uffff", "\u202efox", "a\x1bfox\x7f"])
async def test_a_text_of_odd_characters_is_kept_as_it_is(text: str, api: Api) -> None:
    # PostgreSQL's text has no NUL.
    (spec,) = await api.specs(body({"prompt": text, "neg": text}, trigger_word=text))
    assert (spec.prompt, spec.negative_prompt, spec.trigger_word) == (text, text, text)
    answer = await api.http.get("/v1/requests", params={"tenant": text, "status": text})
    assert answer.status_code < httpx.codes.INTERNAL_SERVER_ERROR
    for path in ("/v1/requests/%00", "/v1/requests/%00/status", "/v1/outputs/%00", "/v1/loras/%00"):
        assert (await api.http.get(path)).status_code in (httpx.codes.NOT_FOUND, httpx.codes.BAD_REQUEST, 405)
