"""Downloading a finished video."""

from pathlib import Path

import pytest
import pytest_asyncio

from tests.client import body
from tests.fixtures.api import Api, on_both_databases

pytestmark = on_both_databases

VIDEO = bytes(range(256)) * 1000


@pytest_asyncio.fixture
async def url(api: Api) -> str:
    """Return where the only video of a finished request is."""
    request_id = await api.submit(body())
    await api.finish(await api.claim(), VIDEO)
    return f"/v1/requests/{request_id}/outputs/0"


@pytest.mark.parametrize(
    ("output_format", "media_type", "extension"),
    [("mp4", "video/mp4", "mp4"), ("webp", "image/webp", "webp"), ("png", "application/zip", "zip")],
)
async def test_a_video_has_the_content_type_and_the_file_name_of_its_format(
    api: Api, output_format: str, media_type: str, extension: str
) -> None:
    request_id = await api.submit(body({}, {"output_format": output_format}))
    for _ in range(2):
        await api.finish(await api.claim(), VIDEO)
    answer = await api.http.get(f"/v1/requests/{request_id}/outputs/1")
    assert (answer.status_code, answer.content) == (200, VIDEO)
    assert answer.headers["content-type"] == media_type
    assert answer.headers["content-disposition"] == f'inline; filename="{request_id}_1.{extension}"'
    assert answer.headers["content-length"] == str(len(VIDEO))
    assert answer.headers["accept-ranges"] == "bytes"


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=100-199", 100, 200),
        ("bytes=255000-", 255000, 256000),
        ("bytes=-500", 255500, 256000),
        ("bytes=255999-9999999", 255999, 256000),
        ("bytes=0-", 0, 256000),
    ],
)
async def test_a_range_of_a_video_can_be_asked_for(api: Api, url: str, asked: str, start: int, end: int) -> None:
    answer = await api.http.get(url, headers={"Range": asked})
    assert answer.status_code == 206
    assert answer.content == VIDEO[start:end]
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{len(VIDEO)}"
    assert answer.headers["content-length"] == str(end - start)
    assert answer.headers["content-type"] == "video/mp4"


@pytest.mark.parametrize("asked", ["bytes=256000-", "bytes=999999-1000000"])
async def test_a_range_beyond_the_end_cannot_be_satisfied(api: Api, url: str, asked: str) -> None:
    answer = await api.http.get(url, headers={"Range": asked})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{len(VIDEO)}"


async def test_a_download_can_be_resumed_while_the_video_is_the_same(api: Api, url: str) -> None:
    etag = (await api.http.get(url)).headers["etag"]
    same = await api.http.get(url, headers={"Range": "bytes=10-", "If-Range": etag})
    assert (same.status_code, same.content) == (206, VIDEO[10:])
    other = await api.http.get(url, headers={"Range": "bytes=10-", "If-Range": '"another"'})
    assert (other.status_code, other.content) == (200, VIDEO)


async def test_head_tells_the_same_without_the_video(api: Api, url: str) -> None:
    head, get = await api.http.head(url), await api.http.get(url)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers == get.headers


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("index", [1, 2, -1, 10**30])
async def test_an_output_that_is_not_finished_or_not_asked_for_is_not_found(api: Api, method: str, index: int) -> None:
    request_id = await api.submit(body({}, {}))
    await api.finish(await api.claim())
    await api.claim()
    answer = await api.http.request(method, f"/v1/requests/{request_id}/outputs/{index}")
    assert answer.status_code == 404
    if method == "GET":
        error = answer.json()["detail"]["error"]
        assert error["code"] == "OUTPUT_NOT_FOUND"
        assert error["details"] == {"request_id": request_id, "index": index, "finished": [0]}


@pytest.mark.parametrize("index", ["first", "0.5", "0x0"])
async def test_an_index_is_a_whole_number(api: Api, url: str, index: str) -> None:
    answer = await api.http.get(f"{url.removesuffix('0')}{index}")
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["path", "index"]


async def test_a_failed_render_has_no_output(api: Api) -> None:
    request_id = await api.submit(body())
    await api.fail(await api.claim())
    answer = await api.http.get(f"/v1/requests/{request_id}/outputs/0")
    assert (answer.status_code, answer.json()["detail"]["error"]["code"]) == (404, "OUTPUT_NOT_FOUND")


async def test_a_video_that_was_removed_from_the_disk_is_not_found(api: Api, url: str) -> None:
    (video,) = [Path(video["file_path"]) for video in (await api.result(url.split("/")[3]))["outputs"]["videos"]]
    video.unlink()
    answer = await api.http.get(url)
    assert (answer.status_code, answer.json()["detail"]["error"]["code"]) == (404, "OUTPUT_NOT_FOUND")


async def test_the_video_of_the_attempt_that_was_published_is_served(api: Api) -> None:
    request_id = await api.submit(body())
    await api.store.claims.release(await api.claim(), max_attempts=3)
    await api.finish(await api.claim(), b"second attempt")
    answer = await api.http.get(f"/v1/requests/{request_id}/outputs/0")
    assert answer.content == b"second attempt"
