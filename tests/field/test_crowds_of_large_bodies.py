"""Large bodies that come in crowds: memory is bounded, each costs the event loop little, and small requests pass."""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.api.json_body import MOST_VALUES
from serve_app.api.large_bodies import SMALL_BYTES, LargeBodies
from serve_app.errors import TooManyBodies
from serve_app.json_bounds import ValueCounter, has_more_values, json_size
from tests.client import body
from tests.fixtures.api import Api

MIB = 1024**2
HEADERS = {"Content-Type": "application/json"}
MILLIONS: dict[str, bytes] = {
    "lists": b"[" + b"[]," * (4 * MIB // 3 - 2) + b"[]]",
    "objects": b"[" + b"{}," * (4 * MIB // 3 - 2) + b"{}]",
    "numbers": b"[" + b"0," * (2 * MIB - 2) + b"0]",
    "texts": b"[" + b'"",' * (4 * MIB // 3 - 2) + b'""]',
    "keys": json.dumps({f"{number}": 0 for number in range(300_000)}).encode(),
    "behind quotes": b'["\\"",' + b"0," * MIB + b"0]",
    "nested": b"[" * MIB + b"]" * MIB,
}


@pytest.mark.parametrize("kind", MILLIONS)
async def test_millions_of_values_are_refused_before_they_become_objects(kind: str, api: Api) -> None:
    answer = await api.http.post("/v1/inference", content=MILLIONS[kind], headers=HEADERS)
    assert answer.status_code == 422
    (problem,) = answer.json()["detail"]
    assert problem["type"] == "too_many_values"
    assert str(MOST_VALUES) in problem["msg"]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def values(value: Any) -> int:
    """Return all values in a value, itself included."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(values, inner))


@given(value=JSON_VALUES, ascii_only=st.booleans())
def test_counting_never_finds_fewer_values_than_there_are(value: Any, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert json_size(text).separators >= (values(value) - 1) / 2
    assert json_size(text).separators <= 2 * values(value)
    assert has_more_values(text, 0) == isinstance(value, list | dict)


async def test_a_prompt_full_of_commas_is_text(api: Api) -> None:
    await api.submit(body(*[{"prompt": '[,{"' * 2000}] * 100))


async def test_large_bodies_together_take_no_more_memory_than_they_may() -> None:
    bodies = LargeBodies(10 * SMALL_BYTES)
    with bodies.room() as first, bodies.room() as second, bodies.room() as small:
        for _ in range(10):
            first(SMALL_BYTES)
        second(2 * SMALL_BYTES)
        with pytest.raises(TooManyBodies):
            second(SMALL_BYTES)
        small(SMALL_BYTES)  # whoever fills the room keeps no small request out
    with bodies.room() as only:
        only(100 * SMALL_BYTES)  # nobody else is hurt


async def test_bodies_that_never_end_leave_others_an_answer(api: Api) -> None:
    api.app.state.large_bodies = LargeBodies(3 * MIB)
    over = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b" " * (2 * MIB)
        await over.wait()

    held = [asyncio.create_task(api.http.post("/v1/inference", content=endless(), headers=HEADERS)) for _ in range(3)]
    refused, _ = await asyncio.wait(held, return_when=asyncio.FIRST_COMPLETED)
    for task in refused:
        answer = task.result()
        assert (answer.status_code, answer.json()["detail"]["error"]["code"]) == (503, "TOO_MANY_BODIES")
        assert int(answer.headers["Retry-After"]) > 0
    await api.submit(body())
    over.set()
    await asyncio.wait(held)


async def test_large_bodies_take_turns_and_leave_three_times_as_much_time_as_they_take() -> None:
    bodies = LargeBodies()
    spans: list[tuple[float, float]] = []

    async def work(size: int) -> None:
        await bodies.turn(size)
        started = time.monotonic()
        time.sleep(0.02)  # noqa: ASYNC251  it stands for work that holds the event loop
        spans.append((started, time.monotonic()))

    await asyncio.gather(*(work(MIB) for _ in range(4)))
    spans.sort()
    for (started, ended), (following, _) in itertools.pairwise(spans):
        assert following - ended >= (ended - started) * 2.7


async def test_a_turn_that_fails_is_over() -> None:
    bodies = LargeBodies()

    async def fail() -> None:
        await bodies.turn(MIB)
        raise ZeroDivisionError

    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            await asyncio.create_task(fail())
    async with asyncio.timeout(60):
        await bodies.turn(MIB)


async def test_who_waits_for_a_turn_and_goes_takes_none() -> None:
    bodies = LargeBodies()
    waiting = [asyncio.create_task(bodies.turn(MIB)) for _ in range(3)]
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    async with asyncio.timeout(60):
        await bodies.turn(MIB)


@pytest.mark.parametrize("kind", MILLIONS)
async def test_too_many_values_are_refused_before_the_body_has_arrived(kind: str, api: Api) -> None:
    content, sent = MILLIONS[kind], 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal sent
        for start in range(0, len(content), SMALL_BYTES):
            sent += SMALL_BYTES
            yield content[start : start + SMALL_BYTES]

    answer = await api.http.post("/v1/inference", content=pieces(), headers=HEADERS)
    assert answer.json()["detail"][0]["type"] == "too_many_values"
    assert sent < MIB


@given(value=JSON_VALUES, cuts=st.lists(st.integers(0, 200)), most=st.integers(0, 20))
def test_values_are_counted_alike_in_pieces(value: Any, cuts: list[int], most: int) -> None:
    text = json.dumps(value).encode()
    edges = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    counter = ValueCounter(most)
    found = [counter.exceeds(text[start:end]) for start, end in itertools.pairwise(edges)]
    assert any(found) == has_more_values(text, most)


@pytest.mark.parametrize("text", [r'["\\",1]', r'["\",",1]', r'[""[,{",1]', r'["\","\\"",1]'])
def test_escapes_that_are_cut_by_the_edge_of_a_piece(text: str) -> None:
    for size in range(1, len(text)):
        counter = ValueCounter(json_size(text.encode()).separators - 1)
        pieces = [text[start : start + size].encode() for start in range(0, len(text), size)]
        assert [counter.exceeds(piece) for piece in pieces][-1]
        counter = ValueCounter(json_size(text.encode()).separators)
        assert not any(counter.exceeds(piece) for piece in pieces)


@pytest.mark.parametrize("count", [1, 4, 5, 1000])
async def test_wrong_prompts_are_counted_and_not_all_written_out(count: int, api: Api) -> None:
    fields = {f"made_up_{number}": 1 for number in range(5)}
    problems = await api.invalid(body(*[{"prompt": "a fox", **fields}] * count))
    told = [problem["loc"] for problem in problems if problem["type"] == "extra_forbidden"]
    assert told == [["body", "prompts", step // 5, f"made_up_{step % 5}"] for step in range(min(5 * count, 20))]
    assert [problem["msg"] for problem in problems[20:]] == ([f"... and {5 * count - 20} more"] if count > 4 else [])
