"""HEAD, OPTIONS and ranges work on every path as HTTP says, and a refusal has the shape of all others."""

from typing import Any

import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.client import body
from tests.fixtures.api import UNKNOWN, Api
from tests.fixtures.each import each

VIDEO = bytes(range(256)) * 8
METHODS = {
    "/v1/inference": "OPTIONS, POST",
    "/v1/loras/inspect": "OPTIONS, POST",
    "/v1/models": "GET, HEAD, OPTIONS",
    "/health": "GET, HEAD, OPTIONS",
    "/openapi.json": "GET, HEAD, OPTIONS",
    "/docs": "GET, HEAD, OPTIONS",
    f"/v1/requests/{UNKNOWN}/status": "GET, HEAD, OPTIONS",
    f"/v1/requests/{UNKNOWN}/result": "GET, HEAD, OPTIONS",
    f"/v1/requests/{UNKNOWN}/outputs/0": "GET, HEAD, OPTIONS",
    f"/v1/requests/{UNKNOWN}/cancel": "OPTIONS, POST",
    f"/v1/requests/{UNKNOWN}": "DELETE, GET, HEAD, OPTIONS",
    "/v1/requests": "GET, HEAD, OPTIONS",
    "/v1/forecast": "OPTIONS, POST",
    "/": "GET, HEAD, OPTIONS",
}
READABLE = [path for path, methods in METHODS.items() if "GET" in methods]


def must_be_documented(answer: Any, code: str) -> None:
    error = answer.json()["detail"]["error"]
    assert answer.headers["content-type"] == "application/json"
    assert (error["code"], error.keys()) == (code, {"code", "message", "details"})


@each("path", METHODS)
async def test_options_lists_every_method(path: str, api: Api) -> None:
    answer = await api.http.options(path)
    assert (answer.status_code, answer.headers["allow"], answer.content) == (204, METHODS[path], b"")


@each("path", METHODS)
@each("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "HEAD", "BREW"])
async def test_a_method_that_a_path_has_not_is_refused_with_those_that_it_has(path: str, method: str, api: Api) -> None:
    answer = await api.http.request(method, path)
    if method in METHODS[path].split(", "):
        assert answer.status_code != 405
        return
    assert (answer.status_code, answer.headers["allow"]) == (405, METHODS[path])
    if method != "HEAD":
        must_be_documented(answer, "METHOD_NOT_ALLOWED")


@each("path", READABLE)
async def test_head_answers_as_get_without_the_body(path: str, api: Api) -> None:
    head, get = await api.http.head(path), await api.http.get(path)
    assert head.content == b""
    assert head.status_code == get.status_code
    assert {**head.headers} == {**get.headers}


async def test_head_of_a_request_and_of_its_output(api: Api) -> None:
    request_id = await api.submit(body())
    await api.finish(await api.claim(), VIDEO)
    for view in ("status", "result", "outputs/0"):
        path = f"/v1/requests/{request_id}/{view}"
        head, get = await api.http.head(path), await api.http.get(path)
        assert (head.status_code, head.content, {**head.headers}) == (200, b"", {**get.headers})


@each("path", ["/page", "/v1", "/v1/inferences", "/v2/models", "/favicon.ico", "/%00"])
@each("method", ["GET", "POST", "OPTIONS", "DELETE"])
async def test_a_path_that_is_not_there(path: str, method: str, api: Api) -> None:
    answer = await api.http.request(method, path)
    assert answer.status_code == 404
    must_be_documented(answer, "PATH_NOT_FOUND")


MALFORMED = [
    "bytes",
    "bytes=",
    "bytes=-",
    "bytes=,",
    "bytes=x",
    "bytes=0-x",
    "bytes=x-1",
    "bytes=+0-5",
    "bytes=0-+5",
    "bytes=1_0-20",
    "bytes=0.0-1",
    "bytes=5-2",
    "bytes=--5",
    "bytes=0-1-2",
    "bytes=0-1;2-3",
    "bytes=0-1,x",
    "bytes: 0-1",
    "0-1",
    "",
    "bytes=" + "9" * 5000 + "-",
]


@pytest_asyncio.fixture
async def output(api: Api) -> str:
    """Return where the one output of a request is served."""
    request_id = await api.submit(body())
    await api.finish(await api.claim(), VIDEO)
    return f"/v1/requests/{request_id}/outputs/0"


async def test_a_malformed_range_is_refused_in_the_documented_shape(output: str, api: Api) -> None:
    for wanted in MALFORMED:
        answer = await api.http.get(output, headers={"Range": wanted})
        assert answer.status_code == 400, (wanted, answer.status_code)
        must_be_documented(answer, "HEADER_INVALID")
        assert answer.json()["detail"]["error"]["details"] == {"header": "Range"}
        assert len(answer.content) < 1000


async def test_a_range_beyond_the_end_is_refused_with_the_length(output: str, api: Api) -> None:
    for wanted in (f"bytes={len(VIDEO)}-", f"bytes={len(VIDEO)}-{2**70}", f"bytes={2**70}-", "bytes=-0"):
        answer = await api.http.get(output, headers={"Range": wanted})
        assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{len(VIDEO)}"), wanted
        must_be_documented(answer, "RANGE_NOT_SATISFIABLE")


@each("wanted", ["items=0-1", "seconds=1-2", "x=", "=0-1"])
async def test_a_range_in_another_unit_is_ignored(wanted: str, output: str, api: Api) -> None:
    answer = await api.http.get(output, headers={"Range": wanted})
    assert (answer.status_code, answer.content) == (200, VIDEO)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.integers(0, len(VIDEO) - 1), length=st.integers(1, 3000) | st.none(), suffix=st.booleans())
async def test_any_range_gives_its_bytes(start: int, length: int | None, suffix: bool, output: str, api: Api) -> None:
    end = "" if length is None else str(start + length - 1)
    wanted, expected = (
        (f"bytes=-{start + 1}", VIDEO[-(start + 1) :])
        if suffix
        else (f"bytes={start}-{end}", VIDEO[start:] if length is None else VIDEO[start : start + length])
    )
    answer = await api.http.get(output, headers={"Range": wanted})
    assert (answer.status_code, answer.content) == (206, expected)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    wanted=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=30)
    | st.from_regex(r"bytes=[-0-9, ]{0,20}", fullmatch=True)
)
async def test_any_range_header_has_a_documented_answer(wanted: str, output: str, api: Api) -> None:
    answer = await api.http.get(output, headers={"Range": wanted})
    assert answer.status_code in (200, 206, 400, 416)
    if answer.status_code >= 400:
        must_be_documented(answer, "HEADER_INVALID" if answer.status_code == 400 else "RANGE_NOT_SATISFIABLE")
