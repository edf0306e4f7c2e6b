"""https:// and http://, against servers that behave and servers that do not. Plain http, but for test_tls.py."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from serve_app.errors import LoraChanged, LoraInvalid, LoraPathRefused
from serve_app.loras.formats import parse_header
from serve_app.loras.sources import LoraSources
from tests.fixtures.web_server import Exchange, File, WebServer, redirect, sha256
from tests.serve_app.loras.sources.conftest import MakeSources, Pin, fetched
from tests.serve_app.loras.sources.servers import lora_bytes

FILE = lora_bytes()
PATH = "/loras/style_high.safetensors"


def test_a_file_is_identified_by_one_request_and_its_header_read_without_another(
    sources: LoraSources, server: WebServer
) -> None:
    server.pages[PATH] = File(FILE)
    located = sources.locate(f"{server.url}{PATH}#part")
    assert located.reference == located.location == f"{server.url}{PATH}"
    assert re.fullmatch("etag-[0-9a-f]{64}", located.content)
    assert (located.sha256, located.size, located.file_name) == (None, len(FILE), "style_high.safetensors")
    assert sources.header(located) == parse_header(FILE, len(FILE), "x")
    assert server.ranges(PATH) == ["bytes=0-262143"]


def test_a_header_longer_than_the_first_bytes_takes_one_more_request(sources: LoraSources, server: WebServer) -> None:
    long = lora_bytes(note="x" * 300_000)
    server.pages[PATH] = File(long)
    located = sources.locate(f"{server.url}{PATH}")
    assert sources.header(located) == parse_header(long, len(long), "x")
    assert len(server.requests) == 2


def test_the_whole_file_is_fetched_once_and_kept(sources: LoraSources, server: WebServer, pin: Pin) -> None:
    server.pages[PATH] = File(FILE)
    assert fetched(sources, f"{server.url}{PATH}", pin) == FILE
    assert fetched(sources, f"{server.url}{PATH}", pin) == FILE
    assert server.ranges(PATH) == ["bytes=0-262143", "bytes=0-", "bytes=0-262143"]


@pytest.mark.parametrize(
    "change",
    [{"etag": '"2"'}, {"etag": None, "last_modified": "Thu, 02 Jan 2025 00:00:00 GMT"}, {"content": FILE[:-4]}],
)
def test_a_replaced_file_is_another_content(
    sources: LoraSources, server: WebServer, pin: Pin, change: dict[str, str]
) -> None:
    page = File(lora_bytes(floats=99_999), etag=None, last_modified="Wed, 01 Jan 2025 00:00:00 GMT")
    server.pages[PATH] = page
    before = sources.locate(f"{server.url}{PATH}")
    server.pages[PATH] = replace(page, **change)  # type: ignore[arg-type]
    assert sources.locate(f"{server.url}{PATH}").content != before.content
    with pytest.raises(LoraChanged, match="replaced or removed"), sources.fetch(pin(before)):
        pass


def test_a_removed_file_has_changed(sources: LoraSources, server: WebServer, pin: Pin) -> None:
    server.pages[PATH] = File(FILE)
    lora = pin(sources.locate(f"{server.url}{PATH}"))
    del server.pages[PATH]
    with pytest.raises(LoraChanged, match="replaced or removed"), sources.fetch(lora):
        pass


def test_a_file_that_changes_before_its_header_was_read_is_refused(sources: LoraSources, server: WebServer) -> None:
    long = lora_bytes(note="x" * 300_000)
    server.pages[PATH] = File(long)
    located = sources.locate(f"{server.url}{PATH}")
    server.pages[PATH] = File(long, etag='"2"')
    with pytest.raises(LoraInvalid, match="changed while it was read"):
        sources.header(located)


@pytest.mark.parametrize("page", [File(FILE, ranges=False), File(FILE, etag=None), File(FILE, etag=None, ranges=False)])
def test_without_ranges_or_a_tag_a_file_is_known_by_its_hash(
    sources: LoraSources, server: WebServer, pin: Pin, page: File
) -> None:
    server.pages[PATH] = page
    located = sources.locate(f"{server.url}{PATH}")
    assert located.content == located.sha256 == sha256(FILE)
    assert sources.header(located) == parse_header(FILE, len(FILE), "x")
    before = len(server.requests)
    with sources.fetch(pin(located)) as file:
        assert file.path.read_bytes() == FILE
    assert len(server.requests) == before
    server.pages[PATH] = replace(page, content=lora_bytes(1))
    assert sources.locate(f"{server.url}{PATH}").content == sha256(lora_bytes(1))


def test_a_file_known_by_its_hash_that_was_replaced_meanwhile_has_changed(
    make: MakeSources, server: WebServer, pin: Pin, cache_dir: Path
) -> None:
    sources = make(private_hosts=(server.host,), allow_http=True)
    server.pages[PATH] = File(FILE, ranges=False)
    located = sources.locate(f"{server.url}{PATH}")
    (cache_dir / "blobs" / sha256(FILE)).unlink()  # as on another node
    server.pages[PATH] = File(lora_bytes(1), ranges=False)
    with pytest.raises(LoraChanged), sources.fetch(pin(located)):
        pass


def test_a_length_that_is_not_told_is_found_out(sources: LoraSources, server: WebServer) -> None:
    def page(exchange: Exchange, _count: int) -> None:
        exchange.start(200, Transfer_Encoding="chunked", ETag='"1"')
        for at in range(0, len(FILE), 50_000):
            piece = FILE[at : at + 50_000]
            exchange.body(b"%x\r\n%s\r\n" % (len(piece), piece))
        exchange.body(b"0\r\n\r\n")

    server.pages[PATH] = page
    assert sources.locate(f"{server.url}{PATH}").sha256 == sha256(FILE)


def test_the_name_that_the_server_gives_counts(sources: LoraSources, server: WebServer) -> None:
    extra = {"Content_Disposition": 'attachment; filename="../../my_low.safetensors"'}
    server.pages["/download/123"] = File(FILE, extra=extra)
    assert sources.locate(f"{server.url}/download/123").file_name == "my_low.safetensors"


def test_redirects_are_followed(sources: LoraSources, server: WebServer, pin: Pin) -> None:
    server.pages["/a"] = redirect("b", 301)
    server.pages["/b"] = redirect(f"{server.url}{PATH}?signature=1", 307)
    server.pages[PATH] = File(FILE)
    assert fetched(sources, f"{server.url}/a", pin) == FILE


def test_redirects_are_bounded(sources: LoraSources, server: WebServer) -> None:
    server.pages["/a"] = redirect("/a")
    with pytest.raises(LoraPathRefused, match="redirects more than 5 times"):
        sources.locate(f"{server.url}/a")
    assert server.count("/a") == 6
