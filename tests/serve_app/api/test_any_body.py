"""Whatever a client sends, it gets an answer that it can act on."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serve_app.api.schemas.bodies import InferenceRequest, LoraItem, PromptItem
from tests.client import body, pair
from tests.fixtures.api import Api
from tests.fixtures.specs import MODEL

fuzz = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

TEXT = st.text(st.characters(), max_size=20)  # lone surrogates too, which st.text() leaves out
SCALAR = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
JSON = st.recursive(SCALAR, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4))
EDGES = st.sampled_from([-(10**30), -2, -1, 0, 1, 63, 64, 4096, 4097, 2**64, 10**30, "", "[trigger]", "mp4", "unipc"])


def items(fields: Any, likely: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    """Return objects with some of these fields, each of a likely value, an edge, or anything."""
    optional = {field: EDGES | SCALAR for field in fields if field not in likely}
    known = st.fixed_dictionaries(likely, optional=optional)
    return known | st.builds(lambda item, more: {**item, **more}, known, st.dictionaries(TEXT, JSON, max_size=1))


PATHS = st.sampled_from([lora["path"] for lora in pair()] + ["absent", "..", "/etc/passwd", "demo"])
LORAS = items(LoraItem.model_fields, {"path": PATHS | TEXT, "transformer": st.sampled_from(["high", "low", None])})
PROMPTS = items(PromptItem.model_fields, {"prompt": TEXT})
REQUESTS = items(
    InferenceRequest.model_fields,
    {
        "model": st.sampled_from([MODEL, MODEL, MODEL, "other"]) | TEXT,
        "loras": st.lists(LORAS, max_size=3) | JSON,
        "prompts": st.lists(PROMPTS, max_size=3) | JSON,
    },
)


async def must_be_answered(api: Api, content: bytes | str) -> None:
    answer = await api.http.post("/v1/inference", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code in (200, 400, 415, 422), answer.text
    assert answer.json().keys() == {"detail"} or answer.json()["status"] == "in_queue"


@fuzz
@given(content=REQUESTS)
async def test_anything_like_a_request_is_accepted_or_refused(api: Api, content: Any) -> None:
    await must_be_answered(api, json.dumps(content))


@fuzz
@given(content=JSON)
async def test_any_json_is_accepted_or_refused(api: Api, content: Any) -> None:
    await must_be_answered(api, json.dumps(content))


@fuzz
@given(content=st.binary(max_size=50))
async def test_any_bytes_are_accepted_or_refused(api: Api, content: bytes) -> None:
    await must_be_answered(api, content)


@fuzz
@given(field=st.sampled_from(sorted(PromptItem.model_fields)), value=EDGES | JSON)
async def test_one_wrong_value_in_a_good_request_is_named_or_does_no_harm(api: Api, field: str, value: Any) -> None:
    answer = await api.post(body({field: value}))
    assert answer.status_code in (200, 400, 422), answer.text
    if answer.status_code == 422:
        assert all(problem["loc"][:4] == ["body", "prompts", 0, field] for problem in answer.json()["detail"])


@pytest.mark.parametrize(
    "content",
    [
        "[" * 100_000,
        "9" * 5000,
        '{"model": ' + "9" * 5000 + "}",
        "1e999",
        "\ufeff{}",
        '{"model": 1}'.encode("utf-16"),
        "",
    ],
    ids=["deep", "long number", "long number within", "infinite", "mark", "utf-16", "empty"],
)
async def test_hostile_json_is_refused(api: Api, content: bytes | str) -> None:
    await must_be_answered(api, content)
    api.must_be_untouched()
