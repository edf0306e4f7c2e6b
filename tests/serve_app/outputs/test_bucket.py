"""Against a server that speaks S3's protocol, over HTTP on loopback."""

import traceback
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from time import time

import httpx
import pytest

from serve_app.errors import OutputNotWritten
from serve_app.outputs import OutputStore
from tests.fixtures.s3 import KEY, SECRET, S3Server

NAME = "request/0-1.mp4"
CONTENT = bytes(range(256)) * 4


@pytest.fixture
def bucket(s3: S3Server) -> str:
    s3.create("videos")
    return "s3://videos/pre/fix"


@pytest.fixture
def store(bucket: str) -> OutputStore:
    return OutputStore.from_url(bucket)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    path.write_bytes(CONTENT)
    return path


async def fetch(store: OutputStore, name: str = NAME, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.get(await store.signed_url(name, 60), headers=headers)


async def test_a_signed_url_serves_the_file_and_its_ranges(store: OutputStore, source: Path) -> None:
    await store.put(NAME, source, "video/mp4")
    whole = await fetch(store)
    assert whole.status_code == 200
    assert whole.content == CONTENT
    assert whole.headers["Content-Type"] == "video/mp4"
    part = await fetch(store, Range="bytes=10-19")
    assert part.status_code == 206
    assert part.content == CONTENT[10:20]
    assert part.headers["Content-Range"] == "bytes 10-19/1024"


async def test_the_object_lies_where_its_location_says(store: OutputStore, source: Path, s3: S3Server) -> None:
    await store.put(NAME, source, "video/mp4")
    assert store.location(NAME) == "s3://videos/pre/fix/request/0-1.mp4"
    async with httpx.AsyncClient() as client:
        listing = await client.get(f"{s3.url}/videos")
    assert f"<Key>pre/fix/{NAME}</Key>" in listing.text


@pytest.mark.slow
async def test_a_file_of_many_parts_arrives_whole(store: OutputStore, tmp_path: Path) -> None:
    source = tmp_path / "long.mp4"
    content = bytes(range(256)) * (12 << 12)  # 12 MiB; obstore's parts are 5 MiB
    source.write_bytes(content)
    await store.put(NAME, source, "video/mp4")
    response = await fetch(store)
    assert response.content == content
    assert response.headers["Content-Type"] == "video/mp4"


async def test_deleting_is_repeatable_and_touches_nothing_else(store: OutputStore, source: Path) -> None:
    names = [NAME, "request/1-1.mp4"]
    for name in names:
        await store.put(name, source, "video/mp4")
    await store.delete([NAME, "never/0-1.mp4"])
    await store.delete([NAME])
    assert [(await fetch(store, name)).status_code for name in names] == [404, 200]


async def test_a_missing_bucket_is_named(bucket: str, source: Path) -> None:
    with pytest.raises(OutputNotWritten, match="404 Not Found, NoSuchBucket"):
        await OutputStore.from_url("s3://missing/prefix").put(NAME, source, "video/mp4")


class Refusal(BaseHTTPRequestHandler):
    """Answers as S3 does to a wrong key: quoting the key's id and the signature."""

    def refuse(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        signature = f"<AWSAccessKeyId>{KEY}</AWSAccessKeyId><SignatureProvided>0f1e2d</SignatureProvided>"
        body = f"<Error><Code>SignatureDoesNotMatch</Code>{signature}</Error>".encode()
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_PUT = do_POST = refuse  # noqa: N815  the names that http.server looks for


@pytest.fixture
def refusing(bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[OutputStore]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusal) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        yield OutputStore.from_url(bucket)
        server.shutdown()
        thread.join()


async def test_a_refusal_names_its_reason_and_no_secret(refusing: OutputStore, source: Path) -> None:
    with pytest.raises(OutputNotWritten, match="SignatureDoesNotMatch") as put:
        await refusing.put(NAME, source, "video/mp4")
    with pytest.raises(OSError, match="SignatureDoesNotMatch") as delete:
        await refusing.delete([NAME])
    for caught in (put, delete):
        report = "".join(traceback.format_exception(caught.value))
        assert not [secret for secret in (KEY, SECRET, "0f1e2d") if secret in report]


async def test_a_source_that_is_gone_is_named(store: OutputStore, tmp_path: Path) -> None:
    with pytest.raises(OutputNotWritten, match="No such file or directory"):
        await store.put(NAME, tmp_path / "gone.mp4", "video/mp4")


async def test_names_cannot_leave_the_prefix(store: OutputStore, source: Path) -> None:
    with pytest.raises(ValueError, match="not a name"):
        await store.put("../x", source, "video/mp4")
    with pytest.raises(ValueError, match="not a name"):
        await store.signed_url("../x", 60)


async def test_a_small_file_is_read_whole(store: OutputStore, source: Path) -> None:
    await store.put(NAME, source, "video/mp4")
    assert await store.read(NAME) == CONTENT
    with pytest.raises(FileNotFoundError, match="is not in the bucket"):
        await store.read("request/none")


async def test_files_are_listed_by_the_names_that_they_were_stored_under(store: OutputStore, source: Path) -> None:
    for name in (NAME, "request/inputs/abc"):
        await store.put(name, source, "video/mp4")
    found = {file.name: file async for file in store.files()}
    assert found.keys() == {NAME, "request/inputs/abc"}
    assert found[NAME].size == len(CONTENT)
    assert abs(found[NAME].modified_at - time()) < 60
    assert [await store.has(name) for name in (NAME, "request/0-2.mp4")] == [True, False]
