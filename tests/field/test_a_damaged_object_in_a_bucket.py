"""What a bucket holds under the name of a video is compared before a client is sent there, as far as HEAD can tell."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator

import httpx
import obstore
import pytest
import pytest_asyncio
from moto.server import ThreadedMotoServer
from obstore.store import S3Store

from tests.client import body
from tests.fixtures.api import Api, ServeApi
from tests.service_process import free_port

VIDEO = bytes(range(256)) * 400
ETAG = f'"{hashlib.sha256(VIDEO).hexdigest()}"'


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    httpx.put(f"http://{host}:{port}/videos").raise_for_status()
    yield f"http://{host}:{port}"
    server.stop()


@pytest_asyncio.fixture
async def bucket_api(serve_api: ServeApi, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Api]:
    """Yield the API with its outputs in a bucket."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "PLANTEDKEY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "PLANTEDSECRET")
    async with serve_api(output_url="s3://videos/outputs") as api:
        yield api


@pytest_asyncio.fixture
async def url(bucket_api: Api) -> str:
    """Return where the only video of a finished request is."""
    request_id = await bucket_api.submit(body())
    await bucket_api.finish(await bucket_api.claim(), VIDEO)
    return f"/v1/requests/{request_id}/outputs/0"


async def put(api: Api, url: str, content: bytes) -> None:
    """Overwrite the object, as another tool would."""
    (video,) = (await api.result(url.split("/")[3]))["outputs"]["videos"]
    key = video["file_path"].removeprefix("s3://videos/outputs/")
    await obstore.put_async(S3Store.from_url("s3://videos/outputs"), key, content)


async def test_a_client_is_sent_to_the_object_that_was_stored(bucket_api: Api, url: str) -> None:
    answer = await bucket_api.http.get(url)
    assert answer.status_code == 307
    async with httpx.AsyncClient() as client:
        assert (await client.get(answer.headers["Location"])).content == VIDEO


async def test_a_client_that_has_the_video_is_not_sent_there_again(bucket_api: Api, url: str) -> None:
    answer = await bucket_api.http.get(url, headers={"If-None-Match": ETAG})
    assert (answer.status_code, answer.headers["ETag"]) == (304, ETAG)


@pytest.mark.parametrize("content", [b"", VIDEO[:100], VIDEO + b"more", b"x" * len(VIDEO)])
async def test_an_object_that_was_overwritten_is_gone(bucket_api: Api, url: str, content: bytes) -> None:
    await put(bucket_api, url, content)
    for headers in ({}, {"If-None-Match": ETAG}):
        answer = await bucket_api.http.get(url, headers=headers)
        assert (answer.status_code, answer.json()["detail"]["error"]["code"]) == (410, "OUTPUT_GONE")


async def test_an_object_that_was_removed_is_not_found(bucket_api: Api, url: str) -> None:
    record = await bucket_api.store.requests.get(url.split("/")[3])
    await bucket_api.outputs.delete(record.output_names)
    answer = await bucket_api.http.get(url)
    assert (answer.status_code, answer.json()["detail"]["error"]["code"]) == (404, "OUTPUT_NOT_FOUND")


@pytest.mark.parametrize("away", ["server", "bucket"])
async def test_where_the_bucket_is_away_delete_is_a_503_and_the_request_stays(
    serve_api: ServeApi, bucket_api: Api, url: str, away: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    request_id = url.split("/")[3]
    if away == "server":
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    place = "s3://videos/outputs" if away == "server" else "s3://missing/outputs"
    async with serve_api(output_url=place) as api:
        answers = [await asyncio.wait_for(api.http.delete(f"/v1/requests/{request_id}"), 20)]
        if away == "server":
            answers.append(await asyncio.wait_for(api.http.get(url), 20))
        for answer in answers:
            assert (answer.status_code, answer.json()["detail"]["error"]["code"]) == (503, "OUTPUT_STORAGE_UNAVAILABLE")
            assert "PLANTED" not in answer.text
        assert await api.result(request_id)
    assert (await bucket_api.http.get(url)).status_code == 307


async def test_a_look_at_a_bucket_leaves_nothing_there(bucket_api: Api) -> None:
    def names() -> list[str]:
        return [found["path"] for page in S3Store.from_url("s3://videos").list() for found in page]

    before = names()
    await bucket_api.outputs.look()
    assert names() == before
