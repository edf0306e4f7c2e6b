"""Multipart forms that no client of OpenAI's would send get an error in OpenAI's shape, and nothing is stored."""

from typing import Any

import httpx
import pytest

from tests.client import pair
from tests.fixtures.api import Api, ServeApi
from tests.fixtures.specs import MODEL

BOUNDARY = {"Content-Type": "multipart/form-data; boundary=x"}


def part(name: str, value: str, extra: str = "") -> bytes:
    return f'--x\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n{value}\r\n'.encode()


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--x--\r\n"


async def sent(api: Api, content: bytes, headers: dict[str, str] | None = None) -> httpx.Response:
    return await api.http.post("/v1/videos", content=content, headers=headers or BOUNDARY)


FOX = part("prompt", "a fox")
STYLE = part("model", MODEL)

WRONG: list[tuple[bytes, dict[str, str], int, str, str | None]] = [
    (form(FOX), {"Content-Type": "multipart/form-data"}, 400, "BODY_DAMAGED", None),  # no boundary
    (b"--x\r\nno header\r\n", BOUNDARY, 400, "BODY_DAMAGED", None),
    (b"", BOUNDARY, 400, "VALUE_INVALID", None),
    (form(), BOUNDARY, 400, "VALUE_INVALID", "prompt"),
    (form(part("prompt", "a fox", '; filename="a.txt"')), BOUNDARY, 400, "VALUE_INVALID", "prompt"),
    (form(FOX, part("a[b][c][d]", "1")), BOUNDARY, 400, "FORM_INVALID", "a[b][c][d]"),
    (form(FOX, part("loras", "[]"), part("loras[][path]", "a")), BOUNDARY, 400, "FORM_INVALID", "loras"),
    (form(FOX, FOX), BOUNDARY, 400, "FORM_INVALID", "prompt"),
    (form(FOX, part("loras[x]", "a"), part("loras[]", "b")), BOUNDARY, 400, "FORM_INVALID", "loras"),
    (form(FOX, part("sample_steps", "[" * 5000)), BOUNDARY, 400, "VALUE_INVALID", "sample_steps"),
    (form(FOX, *[part(f"f{number}", "1") for number in range(600)]), BOUNDARY, 400, "BODY_DAMAGED", None),
    (b"{}", {"Content-Type": "text/plain"}, 415, "MEDIA_TYPE_NOT_SUPPORTED", None),
    (b"{", {"Content-Type": "application/json"}, 400, "VALUE_INVALID", None),
]


async def test_a_broken_form_is_refused_in_openais_shape(api: Api) -> None:
    for content, headers, status, code, param in WRONG:
        answer = await sent(api, content, headers)
        assert answer.status_code == status, (content[:200], answer.text)
        error = answer.json()["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        assert (error["code"], (error["param"] or "").partition(".")[0] or None) == (code, param), content[:200]
    api.must_be_untouched()


async def test_a_form_is_read_up_to_the_limit_of_bodies(serve_api: ServeApi) -> None:
    async with serve_api(max_body_bytes=2048) as api:
        answer = await sent(api, form(FOX, part("neg", "x" * 4096)))
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "BODY_TOO_LARGE")


@pytest.mark.parametrize("spelling", ["grouped", "interleaved", "json"])
async def test_a_pair_in_every_spelling_of_a_form(api: Api, spelling: str) -> None:
    items: list[dict[str, Any]] = pair()
    paths = [part("loras[][path]", item["path"]) for item in items]
    sides = [part("loras[][transformer]", item["transformer"]) for item in items]
    spelled = {
        "grouped": [*paths, *sides],
        "interleaved": [piece for both in zip(paths, sides, strict=True) for piece in both],
        "json": [part("loras", str(items).replace("'", '"'))],
    }
    answer = await sent(api, form(FOX, STYLE, part("sample_steps", "2"), *spelled[spelling]))
    assert answer.status_code == 200, answer.text
    record = await api.store.requests.get(answer.json()["id"])
    found = [(lora.reference, lora.expert.value) for lora in record.renders[0].spec.loras]
    assert sorted(found) == sorted((item["path"], item["transformer"]) for item in items)
