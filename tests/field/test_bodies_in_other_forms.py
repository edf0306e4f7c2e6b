"""A body that is compressed, in another charset or of another type is read, or refused with what to send instead."""

import gzip
import json
import zlib
from collections.abc import AsyncIterator
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.client import body
from tests.fixtures.api import Api
from tests.fixtures.each import each

PATHS = ["/v1/inference", "/v1/loras/inspect"]
TEXT = "Füchse 狐 🦊"
REQUEST = json.dumps(body({"prompt": TEXT}), ensure_ascii=False)
PLAIN = REQUEST.encode()
JSON = "application/json"

fuzz = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


async def post(api: Api, content: Any, path: str = "/v1/inference", **headers: str) -> Any:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return await api.http.post(path, content=content, headers=names)


async def refused(api: Api, content: Any, path: str = "/v1/inference", *, status: int = 415, **headers: str) -> Any:
    """Return the error of a body that must be refused, in the documented shape, and leave nothing behind."""
    answer = await post(api, content, path, **headers)
    assert answer.status_code == status, answer.text
    (error,) = answer.json()["detail"].values()
    assert error.keys() == {"code", "message", "details"}
    api.must_be_untouched()
    return error


@each("path", PATHS)
@each(
    "content_type",
    [
        "application/x-www-form-urlencoded",
        "text/plain",
        "text/json",
        "application/octet-stream",
        "multipart/form-data; boundary=x",
        "application/xml",
        "application/jsonx",
        "json",
        "",
        "/",
        "application/json/json",
    ],
)
async def test_another_type_is_refused_by_its_name(path: str, content_type: str, api: Api) -> None:
    error = await refused(api, PLAIN, path, content_type=content_type)
    assert error["code"] == "MEDIA_TYPE_NOT_SUPPORTED"
    assert repr(content_type) in error["message"]
    assert "Content-Type: application/json" in error["message"]


@each("path", PATHS)
async def test_no_type_is_refused(path: str, api: Api) -> None:
    error = await refused(api, PLAIN, path)
    assert "no Content-Type" in error["message"]


@each(
    "content_type",
    [
        JSON,
        "APPLICATION/JSON",
        "application/json; charset=utf-8",
        'application/json; charset="UTF-8"',
        "application/json;charset=utf8",
        "application/problem+json",
        "application/json; version=1",
    ],
)
async def test_json_is_read_however_its_type_is_written(content_type: str, api: Api) -> None:
    answer = await post(api, PLAIN, content_type=content_type)
    assert answer.status_code == 200, answer.text


@each("path", PATHS)
@each("charset", ["latin-1", "iso-8859-1", "windows-1252", "utf-16", "utf-7", "shift_jis", "none"])
async def test_another_charset_is_refused_by_its_name(path: str, charset: str, api: Api) -> None:
    error = await refused(api, b"{}", path, content_type=f"{JSON}; charset={charset}")
    assert error["code"] == "ENCODING_NOT_SUPPORTED"
    assert repr(charset) in error["message"]


@each("path", PATHS)
@each("encoding", ["latin-1", "cp1252", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp437"])
async def test_a_charset_that_is_not_announced_is_noticed(path: str, encoding: str, api: Api) -> None:
    content = json.dumps(body({"prompt": "Füchse"}), ensure_ascii=False).encode(encoding)
    error = await refused(api, content, path, content_type=JSON)
    assert error["code"] == "ENCODING_NOT_SUPPORTED"
    assert "UTF-8" in error["message"]


async def test_a_byte_order_mark_is_left_out(api: Api) -> None:
    assert (await post(api, b"\xef\xbb\xbf" + PLAIN, content_type=JSON)).status_code == 200


@each("path", PATHS)
@each(
    "encoding", ["br", "deflate", "zstd", "compress", "gzip, gzip", "gzip, br", "x", "*", "aes128gcm", "identity, br"]
)
async def test_another_compression_is_refused_by_its_name(path: str, encoding: str, api: Api) -> None:
    error = await refused(api, zlib.compress(PLAIN), path, content_type=JSON, content_encoding=encoding)
    assert error["code"] == "ENCODING_NOT_SUPPORTED"
    assert repr(encoding) in error["message"]
    assert "gzip" in error["message"]


@each("encoding", ["gzip", "GZIP", "x-gzip", " gzip ", "identity, gzip", "gzip,"])
@each("level", [0, 1, 9])
async def test_gzip_is_read(encoding: str, level: int, api: Api) -> None:
    answer = await post(api, gzip.compress(PLAIN, level), content_type=JSON, content_encoding=encoding)
    assert answer.status_code == 200, answer.text
    record = await api.store.requests.get(answer.json()["request_id"])
    assert record.renders[0].spec.prompt == TEXT


@each("encoding", ["", "identity", "IDENTITY"])
async def test_no_compression_may_be_announced(encoding: str, api: Api) -> None:
    assert (await post(api, PLAIN, content_type=JSON, content_encoding=encoding)).status_code == 200


@fuzz
@given(cuts=st.lists(st.integers(1, 40), min_size=1, max_size=30))
async def test_gzip_is_read_in_whatever_pieces_it_comes(cuts: list[int], api: Api) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        rest = gzip.compress(PLAIN)
        for cut in cuts:
            yield rest[:cut]
            rest = rest[cut:]
        yield rest

    assert (await post(api, pieces(), content_type=JSON, content_encoding="gzip")).status_code == 200


@fuzz
@given(data=st.data())
async def test_damaged_gzip_is_refused_as_such(data: st.DataObject, api: Api) -> None:
    whole = gzip.compress(PLAIN)
    at = data.draw(st.integers(0, len(whole) - 1))
    damaged = data.draw(
        st.sampled_from([whole[:at], whole + b"more", whole * 2, PLAIN, whole[:at] + b"\xff\x00\xff" + whole[at + 3 :]])
    )
    answer = await post(api, damaged, content_type=JSON, content_encoding="gzip")
    if damaged in (whole[:at], whole + b"more", whole * 2, PLAIN):
        assert answer.status_code in (400, 422) if not damaged else answer.status_code == 400, answer.text
    if answer.status_code == 400:
        assert answer.json()["detail"]["error"]["code"] == "BODY_DAMAGED"
    else:
        assert answer.status_code in (200, 422)  # where the bytes that were changed do not count


@each("content", [b"{", b"[" * 10_000, b"9" * 5000, b'{"model": ' + b"9" * 5000 + b"}", b"not json", b"'x'", b"{}x"])
@each("path", PATHS)
async def test_what_is_no_json_is_reported_with_its_place(path: str, content: bytes, api: Api) -> None:
    answer = await post(api, content, path, content_type=JSON)
    assert answer.status_code == 422
    (problem,) = answer.json()["detail"]
    assert problem.keys() == {"loc", "msg", "type"}
    assert (problem["loc"][0], problem["type"]) == ("body", "json_invalid")


@each("path", PATHS)
async def test_no_body_at_all_is_a_missing_field(path: str, api: Api) -> None:
    answer = await api.http.post(path)
    assert answer.status_code == 422
    assert answer.json()["detail"] == [{"loc": ["body"], "msg": "Field required", "type": "missing"}]


@each("length", ["abc", "-1", "+5", "5 5", "", "\u0664", "1_0", "0x5"])
async def test_a_length_that_is_no_number_does_no_harm(length: str, api: Api) -> None:
    headers = [(b"Content-Type", JSON.encode()), (b"Content-Length", length.encode())]
    assert (await api.http.post("/v1/inference", content=PLAIN, headers=headers)).status_code == 200


@each("path", PATHS)
async def test_a_client_that_disconnects_in_the_middle_leaves_nothing(path: str, api: Api) -> None:
    messages = iter([{"type": "http.request", "body": PLAIN[:20], "more_body": True}, {"type": "http.disconnect"}])
    sent: list[Any] = []

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"content-type", JSON.encode()), (b"host", b"localhost")]
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b""}
    await api.app(scope, receive, send)
    assert sent[0]["status"] == 400
    api.must_be_untouched()
