"""s3://, against a server that speaks S3's protocol. Of gs:// and az:// only the addresses are."""

from pathlib import Path

import obstore
import pytest
from obstore.store import S3Store

from serve_app.errors import LoraChanged, LoraInvalid, LoraNotFound, LoraPathRefused, LoraSourceUnavailable
from serve_app.loras.formats import parse_header
from serve_app.loras.sources import LoraSources
from tests.fixtures.s3 import KEY, S3Server
from tests.fixtures.web_server import File, WebServer, sha256
from tests.serve_app.loras.sources.conftest import MakeSources, Pin
from tests.serve_app.loras.sources.servers import lora_bytes

FILE = lora_bytes()
NAME = "my folder/style_high.safetensors"
REFERENCE = f"s3://loras/{NAME}"


@pytest.fixture
def bucket(s3: S3Server) -> S3Store:
    """Return a bucket, as the environment says where."""
    s3.create("loras")
    return S3Store.from_url("s3://loras")


@pytest.fixture(autouse=True)
def _file(bucket: S3Store) -> None:
    put(bucket, FILE)


def put(bucket: S3Store, content: bytes) -> None:
    obstore.put(bucket, NAME, content)


@pytest.fixture
def sources(make: MakeSources, bucket: S3Store) -> LoraSources:
    """Return sources that may read the bucket. No host is named: where a bucket lies is the operator's business."""
    return make(hosts=("s3://loras",), total_timeout_s=30)


def test_a_file_is_identified_read_and_fetched(sources: LoraSources, pin: Pin) -> None:
    located = sources.locate(f" {REFERENCE}")
    assert (located.reference, located.location) == (REFERENCE, REFERENCE)
    assert (located.file_name, located.size, located.sha256) == ("style_high.safetensors", len(FILE), None)
    assert sources.header(located) == parse_header(FILE, len(FILE), "x")
    with sources.fetch(pin(located)) as file:
        assert file.path.read_bytes() == FILE
        assert file.sha256 == sha256(FILE)


def test_a_long_header_is_read_whole(sources: LoraSources, bucket: S3Store) -> None:
    long = lora_bytes(note="x" * 300_000)
    put(bucket, long)
    assert sources.header(sources.locate(REFERENCE)) == parse_header(long, len(long), "x")


def test_a_replaced_file_is_another_content(sources: LoraSources, bucket: S3Store, pin: Pin) -> None:
    before = sources.locate(REFERENCE)
    put(bucket, lora_bytes(1))
    assert sources.locate(REFERENCE).content != before.content
    with pytest.raises(LoraChanged), sources.fetch(pin(before)):
        pass
    with pytest.raises(LoraInvalid, match="changed while it was read"):
        sources.header(before)
    obstore.delete(bucket, NAME)
    with pytest.raises(LoraChanged), sources.fetch(pin(before)):
        pass


@pytest.mark.parametrize("arrived", [100_000, len(FILE)])
def test_an_interrupted_download_continues_where_it_was(
    sources: LoraSources, pin: Pin, cache_dir: Path, arrived: int
) -> None:
    lora = pin(sources.locate(REFERENCE))
    (cache_dir / "partial" / lora.content).write_bytes(b"?" * 9 + FILE[9:arrived])  # to see that it is not read again
    with sources.fetch(lora) as file:
        again = FILE if arrived == len(FILE) else b"?" * 9 + FILE[9:]
        assert file.path.read_bytes() == again


def test_what_is_not_there_is_not_found(make: MakeSources, bucket: S3Store) -> None:
    for reference in ("s3://loras/none.safetensors", "s3://nobucket/a.safetensors"):
        with pytest.raises(LoraNotFound) as caught:
            make().locate(reference)
        assert caught.value.details == {"missing_files": [reference]}


@pytest.mark.parametrize(
    ("reference", "why"),
    [
        ("s3://other/a.safetensors", "s3://other is none of the buckets"),
        ("gs://loras/a.safetensors", "gs://loras is none of the buckets"),
        ("az://loras/a.safetensors", "az://loras is none of the buckets"),
        ("s3://loras", "name a bucket and a file in it"),
        ("s3://loras/", "name a bucket and a file in it"),
        ("gs:///a", "name a bucket and a file in it"),
        ("s3://key:secret@loras/a", "credentials belong in the service's environment"),
        ("s3://loras?x/a", "bucket's name is not possible"),
        ("s3://loras/a//b", "key is one that cannot exist"),
    ],
)
def test_other_buckets_and_odd_addresses_are_refused(sources: LoraSources, reference: str, why: str) -> None:
    with pytest.raises(LoraPathRefused, match=why) as caught:
        sources.locate(reference)
    assert "secret" not in str(caught.value.body())


def test_a_file_beyond_the_limit_is_refused(make: MakeSources, bucket: S3Store) -> None:
    with pytest.raises(LoraPathRefused, match="at most 1000"):
        make(max_bytes=1000).locate(REFERENCE)


@pytest.fixture
def odd(bucket: S3Store, server: WebServer, monkeypatch: pytest.MonkeyPatch) -> WebServer:
    """Return a server that s3:// leads to, and that answers as the test likes."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    return server


@pytest.mark.parametrize(
    ("status", "error", "why"),
    [
        (403, LoraPathRefused, "credentials may not read it"),
        (401, LoraPathRefused, "credentials may not read it"),
        (503, LoraSourceUnavailable, "broke off; retry later"),
    ],
)
def test_a_refusal_names_its_reason_and_no_secret(
    make: MakeSources, odd: WebServer, status: int, error: type[LoraPathRefused], why: str
) -> None:
    quoted = f"<Error><Code>SignatureDoesNotMatch</Code><AWSAccessKeyId>{KEY}</AWSAccessKeyId></Error>".encode()
    odd.pages["/loras/a"] = lambda exchange, _count: exchange.answer(status, quoted)
    with pytest.raises(error, match=why) as caught:
        make().locate("s3://loras/a")
    assert KEY not in str(caught.value.body())
    assert odd.count("/loras/a") == (4 if status == 503 else 1)


def test_a_stalling_store_is_given_up_within_the_time_allowed(make: MakeSources, odd: WebServer) -> None:
    odd.pages["/loras/a"] = lambda exchange, _count: exchange.wait()
    with pytest.raises(LoraSourceUnavailable):
        make(attempts=2, read_timeout_s=1).locate("s3://loras/a")
    assert odd.count("/loras/a") == 2


@pytest.mark.parametrize("stalls", [False, True])
def test_a_download_that_breaks_off_is_resumed(make: MakeSources, odd: WebServer, pin: Pin, stalls: bool) -> None:
    odd.pages["/loras/a"] = page = File(FILE, last_modified="Wed, 01 Jan 2025 00:00:00 GMT")
    sources = make()
    lora = pin(sources.locate("s3://loras/a"))
    page.breaks, page.stalls = [200_000], stalls
    with sources.fetch(lora) as file:
        assert file.path.read_bytes() == FILE
