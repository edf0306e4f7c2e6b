"""`PUT /v1/loras/{path}`: a LoRA file is kept once it is known to be one, and never in place of another one unasked."""

import asyncio
import gzip
import os
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.client import body, pair
from tests.fixtures.api import Api, Json, ServeApi
from tests.serve_app.loras.files import full, save

NAME = "my job/style_high_noise.safetensors"


@pytest.fixture
async def uploads(serve_api: ServeApi) -> AsyncIterator[Api]:
    """Yield a service that takes uploads."""
    async with serve_api(uploads=True) as api:
        yield api


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    """Return a LoRA file."""
    return save(tmp_path / "new.safetensors", full(6)).read_bytes()


async def put(api: Api, path: str, content: bytes, **headers: str) -> httpx.Response:
    return await api.http.put(f"/v1/loras/{path}", content=content, headers=headers)


async def refused(api: Api, path: str, content: bytes, status: int, code: str, **headers: str) -> Json:
    answer = await put(api, path, content, **headers)
    error: Json = answer.json()["detail"]["error"]
    assert (answer.status_code, error["code"]) == (status, code), answer.text
    assert left_over(api) == []
    return error


def left_over(api: Api) -> list[Path]:
    """Return what was kept, or is left of what was not."""
    known = {api.lora_root / lora["path"] for lora in pair()}
    return [path for path in api.lora_root.rglob("*") if path.is_file() and path not in known]


async def test_an_uploaded_file_is_listed_and_renders(uploads: Api, content: bytes) -> None:
    answer = await put(uploads, NAME, content)
    assert answer.status_code == 201, answer.text
    kept = answer.json()
    assert (kept["path"], kept["size"], kept["side"], kept["rank"]) == (NAME, len(content), "high", 6)
    assert kept in (await uploads.get("/v1/loras"))["files"]
    assert (await uploads.get("/v1/loras"))["uploads_allowed"] is True
    await uploads.submit(body(loras=[{"path": NAME, "transformer": "high"}]))
    assert [path.relative_to(uploads.lora_root).as_posix() for path in left_over(uploads)] == [NAME]


async def test_the_same_file_again_is_no_conflict_and_another_one_is(
    uploads: Api, content: bytes, tmp_path: Path
) -> None:
    assert (await put(uploads, NAME, content)).status_code == 201
    assert (await put(uploads, NAME, content)).status_code == 200
    other = save(tmp_path / "other.safetensors", full(7)).read_bytes()
    conflict = await put(uploads, NAME, other, **{"If-None-Match": "*"})
    assert (conflict.status_code, conflict.json()["detail"]["error"]["code"]) == (409, "LORA_EXISTS")
    assert (uploads.lora_root / NAME).read_bytes() == content
    assert (await put(uploads, f"{NAME}?overwrite=true", other)).status_code == 201
    assert (uploads.lora_root / NAME).read_bytes() == other


async def test_what_is_no_lora_of_a_served_model_is_not_kept(uploads: Api, content: bytes) -> None:
    await refused(uploads, NAME, b"not a LoRA", 400, "LORA_INVALID")
    await refused(uploads, NAME, b"", 400, "LORA_INVALID")
    await refused(uploads, NAME, content[:-1], 400, "LORA_INVALID")


@pytest.mark.parametrize(
    "path",
    [
        "", "%2E", "%2e%2e/out.safetensors", "%2Fetc/a.safetensors", "a/%2e%2e/%2e%2e/b.safetensors", "inspect%0A",
        ".hidden/a.safetensors", ".uploads/a.safetensors", "a.txt", "a.safetensors/b", "demo", "a%5Cb.safetensors",
        "a%00b.safetensors", "a%0Ab.safetensors", f"{'a' * 256}.safetensors", "/".join("abcdefghi") + ".safetensors",
    ],
)  # fmt: skip
async def test_a_path_that_requests_could_not_name_is_refused(uploads: Api, content: bytes, path: str) -> None:
    await refused(uploads, path, content, 400, "LORA_PATH_REFUSED")


async def test_a_link_does_not_lead_out(uploads: Api, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (uploads.lora_root / "link").symlink_to(tmp_path / "outside")
    await refused(uploads, "link/a.safetensors", content, 400, "LORA_PATH_REFUSED")
    await refused(uploads, f"{pair()[0]['path']}/a.safetensors", content, 400, "LORA_PATH_REFUSED")
    assert list((tmp_path / "outside").iterdir()) == []


async def test_a_service_takes_uploads_only_where_its_operator_says_so(api: Api, content: bytes) -> None:
    error = await refused(api, NAME, content, 403, "UPLOADS_OFF")
    assert "arg uploads" in error["message"]


async def test_headers_that_contradict_or_compress_are_refused(uploads: Api, content: bytes) -> None:
    await refused(uploads, f"{NAME}?overwrite=true", content, 400, "HEADER_INVALID", **{"If-None-Match": "*"})
    await refused(uploads, NAME, content, 400, "HEADER_INVALID", **{"If-None-Match": '"1"'})
    packed = gzip.compress(content)
    await refused(uploads, NAME, packed, 415, "ENCODING_NOT_SUPPORTED", **{"Content-Encoding": "gzip"})


async def test_a_file_beyond_the_limit_is_refused_whether_it_says_its_length_or_not(
    serve_api: ServeApi, content: bytes
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield content
        yield content

    async with serve_api(uploads=True, lora_max_gib=1.5 * len(content) / 1024**3) as api:
        await refused(api, NAME, content * 2, 413, "BODY_TOO_LARGE")
        answer = await api.http.put(f"/v1/loras/{NAME}", content=chunks())
        assert (answer.status_code, left_over(api)) == (413, [])


async def test_a_file_that_stops_arriving_is_refused_and_a_fifth_one_has_to_wait(serve_api: ServeApi) -> None:
    async def stalling() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.sleep(30)

    async with serve_api(uploads=True, body_timeout_s=0.5) as api:
        running = [api.http.put(f"/v1/loras/{number}.safetensors", content=stalling()) for number in range(5)]
        answers = await asyncio.gather(*running)
        assert sorted(answer.status_code for answer in answers) == [408, 408, 408, 408, 503]
        assert left_over(api) == []


async def test_a_tenants_file_is_its_own(serve_api: ServeApi, content: bytes) -> None:
    async with serve_api(uploads=True, trust_tenant_header=True) as api:
        assert (await put(api, NAME, content, **{"X-Tenant": "team-a"})).status_code == 201
        assert (api.lora_root / "tenants" / "team-a" / NAME).read_bytes() == content
        mine, theirs = [
            [file["path"] for file in (await api.http.get("/v1/loras", headers={"X-Tenant": tenant})).json()["files"]]
            for tenant in ("team-a", "team-b")
        ]
        assert (NAME in mine, NAME in theirs) == (True, False)


async def test_a_folder_that_cannot_be_written_is_a_503(uploads: Api, content: bytes) -> None:
    (uploads.lora_root / ".uploads").write_text("in the way")
    answer = await put(uploads, NAME, content)
    assert (answer.status_code, answer.json()["detail"]["error"]["code"]) == (503, "LORA_STORAGE_UNAVAILABLE")


async def test_what_a_dead_process_left_is_swept(uploads: Api, content: bytes) -> None:
    left = uploads.lora_root / ".uploads" / "1.part"
    left.parent.mkdir()
    left.write_bytes(b"half a file")
    os.utime(left, (0, 0))
    assert (await put(uploads, NAME, content)).status_code == 201
    assert not left.exists()
