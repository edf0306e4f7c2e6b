"""However much is wrong with a request, and however long its texts are, the answer is short and comes at once."""

import json
import time
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from serve_app.echo import ITEMS, bounded
from tests.client import body, pair
from tests.fixtures.api import Api
from tests.fixtures.each import each

LONGEST = 16_000  # bytes
LONG = "x" * 3000
FIELDS = {f"made_up_{index}": 1 for index in range(100_000)}
WRONG: dict[str, Any] = {
    "loras": body(loras=[{"path": 1}] * 100_000),
    "prompts": {**body(), "prompts": [{"width": "wide"}] * 100_000},
    "thousand prompts": {**body(), "prompts": [{"width": "wide", "seed": "s", "fps": []}] * 1000},
    "fields": body(**FIELDS),
    "fields of a prompt": body(FIELDS),
    "fields of prompts": body(*[{f"made_up_{index}": 1 for index in range(20)}] * 1000),
    "fields of a lora": body(loras=[{**pair()[0], **FIELDS}]),
    "name of a field": body(**{"y" * 1_000_000: 1}),
    "names of fields": body(**{f"{index}{LONG}": 1 for index in range(30)}),
    "model": body(model="m" * 255),
    "paths": body(loras=[{"path": f"{index}{LONG}", "transformer": "low"} for index in range(16)]),
    "paths without a side": body(loras=[{"path": f"{index}{LONG}"} for index in range(16)]),
    "addresses": body(
        loras=[{"path": f"https://127.0.0.1/{index}{LONG}", "transformer": "low"} for index in range(16)]
    ),
    "text for a number": body({"width": "9" * 1_000_000}),
    "text for a choice": body({"sampler": "z" * 1_000_000}, recipe="z" * 1_000_000),
    "list for a text": body({"prompt": [LONG] * 1000}),
    "number": body({"seed": 10**4000}),
    "control image": body({"ctrl_img": "a" * 100_000}),
}


@each("kind", WRONG)
async def test_a_refusal_is_short_and_quick(kind: str, api: Api) -> None:
    content = json.dumps(WRONG[kind])
    started = time.monotonic()
    answer = await api.http.post("/v1/inference", content=content, headers={"Content-Type": "application/json"})
    assert time.monotonic() - started < 20  # it takes 0.1 s where nothing else runs
    assert answer.status_code in (400, 422), answer.text[:1000]
    assert len(answer.content) < LONGEST
    api.must_be_untouched()


@each("count", [1, 19, 20, 21, 500])
async def test_the_first_twenty_problems_are_told_and_the_rest_counted(count: int, api: Api) -> None:
    problems = await api.invalid({**body(), "prompts": [{"prompt": "a fox", "width": 1}] * count})
    told = [problem for problem in problems if problem["type"] != "too_many_problems"]
    assert [problem["loc"] for problem in told] == [
        ["body", "prompts", index, "width"] for index in range(min(count, ITEMS))
    ]
    assert [problem["msg"] for problem in problems[len(told) :]] == (
        [f"... and {count - ITEMS} more"] if count > ITEMS else []
    )


@each("kind", ["paths", "addresses", "name of a field"])
async def test_inspection_is_no_longer_than_that_either(kind: str, api: Api) -> None:
    loras = WRONG[kind]["loras"] if kind != "name of a field" else [{**pair()[0], "y" * 1_000_000: 1}]
    answer = await api.http.post("/v1/loras/inspect", json={"loras": loras})
    assert len(answer.content) < 4 * LONGEST


@each("view", ["status", "result", "cancel", "outputs/0", "outputs/" + "9" * 4000, ""])
async def test_a_long_id_is_not_repeated_in_full(view: str, api: Api) -> None:
    path = f"/v1/requests/{'a' * 60_000}/{view}".rstrip("/")
    for method in ("GET", "POST", "DELETE"):
        answer = await api.http.request(method, path)
        assert answer.status_code in (404, 405, 422)
        assert len(answer.content) < 4000


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.integers(0, 5000).map("x".__mul__),
    lambda inner: st.lists(inner) | st.integers(0, 50).flatmap(lambda n: inner.map(lambda item: [item] * n)),
    max_leaves=5,
)


@given(value=VALUES)
def test_whatever_an_error_tells_is_cut(value: Any) -> None:
    cut = bounded(value)
    assert isinstance(cut, type(value))
    if isinstance(value, list):
        assert len(cut) == min(len(value), ITEMS + 1)
    if isinstance(value, str):
        assert len(cut) <= 500
        assert cut == value or cut.endswith("...")
