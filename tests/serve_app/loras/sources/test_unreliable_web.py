"""Web servers that break off, stall, lie, refuse, or answer with something else."""

from pathlib import Path

import pytest

from serve_app.errors import LoraInvalid, LoraNotFound, LoraPathRefused, LoraSourceUnavailable
from serve_app.loras.sources import LoraSources
from tests.fixtures.web_server import Exchange, File, WebServer, html, sha256
from tests.serve_app.loras.sources.conftest import MakeSources, Pin, fetched
from tests.serve_app.loras.sources.servers import lora_bytes

FILE = lora_bytes()
PATH = "/loras/style_high.safetensors"
_STALLED = {"read_timeout_s": 1}  # after which a server that sends nothing has stalled


@pytest.mark.parametrize("stalls", [False, True])
def test_an_interrupted_download_continues_where_it_was(
    make: MakeSources, server: WebServer, pin: Pin, stalls: bool
) -> None:
    sources = make(private_hosts=(server.host,), allow_http=True, **_STALLED if stalls else {})
    server.pages[PATH] = page = File(FILE)
    lora = pin(sources.locate(f"{server.url}{PATH}"))
    page.breaks, page.stalls = [100_000, 250_001], stalls
    with sources.fetch(lora) as file:
        assert file.path.read_bytes() == FILE
    assert server.ranges(PATH)[1:] == ["bytes=0-", "bytes=100000-", "bytes=250001-"]


def test_an_interrupted_download_starts_again_where_ranges_are_not_known(
    sources: LoraSources, server: WebServer
) -> None:
    # locating takes the first 256 KiB, so the first break is for the download
    server.pages[PATH] = File(FILE, ranges=False, breaks=[300_000, 350_000])
    assert sources.locate(f"{server.url}{PATH}").sha256 == sha256(FILE)
    assert server.count(PATH) == 3


def test_a_later_request_resumes_what_an_earlier_one_gave_up(make: MakeSources, server: WebServer, pin: Pin) -> None:
    impatient = make(private_hosts=(server.host,), allow_http=True, attempts=1)
    server.pages[PATH] = page = File(FILE)
    lora = pin(impatient.locate(f"{server.url}{PATH}"))
    page.breaks = [200_000]
    with pytest.raises(LoraSourceUnavailable, match="broke off"), impatient.fetch(lora):
        pass
    with impatient.fetch(lora) as file:
        assert file.path.read_bytes() == FILE
    assert server.ranges(PATH)[-1] == "bytes=200000-"


def test_a_download_that_is_complete_but_for_its_name_is_not_repeated(
    sources: LoraSources, server: WebServer, pin: Pin, cache_dir: Path
) -> None:
    server.pages[PATH] = File(FILE)
    lora = pin(sources.locate(f"{server.url}{PATH}"))
    (cache_dir / "partial" / lora.content).write_bytes(FILE)
    with sources.fetch(lora) as file:
        assert file.path.read_bytes() == FILE


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(sources: LoraSources, server: WebServer, pin: Pin, status: int) -> None:
    def page(exchange: Exchange, count: int) -> None:
        if count < 4:
            exchange.answer(status, b"busy", Retry_After="3600")  # the policy's bound is shorter
        else:
            File(FILE)(exchange, count)

    server.pages[PATH] = page
    assert fetched(sources, f"{server.url}{PATH}", pin) == FILE


def test_a_server_that_stays_busy_is_given_up(sources: LoraSources, server: WebServer) -> None:
    server.pages[PATH] = lambda exchange, _count: exchange.answer(503, Retry_After="Wed, 01 Jan 2020 00:00:00 GMT")
    with pytest.raises(LoraSourceUnavailable, match="answers 503; retry later"):
        sources.locate(f"{server.url}{PATH}")
    assert server.count(PATH) == 4


def test_a_server_that_is_not_there_is_unavailable(make: MakeSources) -> None:
    sources = make(private_hosts=("127.0.0.1",), allow_http=True)
    with pytest.raises(LoraSourceUnavailable, match="cannot be reached"):
        sources.locate("http://127.0.0.1:9/a.safetensors")


@pytest.mark.parametrize(
    ("status", "error", "why"),
    [
        (401, LoraPathRefused, "denies access"),
        (403, LoraPathRefused, "denies access"),
        (404, LoraNotFound, "not found"),
        (410, LoraNotFound, "not found"),
        (405, LoraPathRefused, "answers 405"),
        (416, LoraInvalid, "empty"),
    ],
)
def test_what_the_client_must_change_is_not_tried_again(
    sources: LoraSources, server: WebServer, status: int, error: type[Exception], why: str
) -> None:
    server.pages[PATH] = lambda exchange, _count: exchange.answer(status)
    with pytest.raises(error, match=why) as caught:
        sources.locate(f"{server.url}{PATH}")
    assert f"{server.url}{PATH}" in str(caught.value)
    assert server.count(PATH) == 1


def test_a_missing_file_is_worded_as_the_reference_server_does(sources: LoraSources, server: WebServer) -> None:
    with pytest.raises(LoraNotFound) as caught:
        sources.locate(f"{server.url}/absent")
    assert caught.value.details == {"missing_files": [f"{server.url}/absent"]}


@pytest.mark.parametrize(
    "page",
    [
        html,
        File(b"<!DOCTYPE html><html>", content_type="application/octet-stream"),
        File(b"\xef\xbb\xbf <html><body>", etag=None, ranges=False),
    ],
)
def test_a_web_page_is_called_one(sources: LoraSources, server: WebServer, page: File) -> None:
    server.pages[PATH] = page
    with pytest.raises(LoraInvalid, match="web page"):
        sources.locate(f"{server.url}{PATH}")
    assert len(server.requests) == 1


def test_compression_is_refused(sources: LoraSources, server: WebServer) -> None:
    server.pages[PATH] = File(FILE, extra={"Content_Encoding": "gzip"})
    with pytest.raises(LoraPathRefused, match="compressed"):
        sources.locate(f"{server.url}{PATH}")
    assert server.requests[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("page", [File(FILE), File(FILE, ranges=False), File(FILE, etag=None)])
def test_a_file_beyond_the_limit_is_refused_before_it_is_read(make: MakeSources, server: WebServer, page: File) -> None:
    server.pages[PATH] = page
    sources = make(private_hosts=(server.host,), allow_http=True, max_bytes=len(FILE) - 1)
    with pytest.raises(LoraPathRefused, match=f"at least {len(FILE)} bytes"):
        sources.locate(f"{server.url}{PATH}")
    assert len(server.requests) == 1


def test_an_endless_file_is_cut_off(make: MakeSources, server: WebServer) -> None:
    def page(exchange: Exchange, _count: int) -> None:
        exchange.start(200, Connection="close")
        exchange.body(FILE)
        while True:
            exchange.body(bytes(100_000))

    server.pages[PATH] = page
    sources = make(private_hosts=(server.host,), allow_http=True, max_bytes=1_000_000)
    with pytest.raises(LoraPathRefused, match="at most 1000000"):
        sources.locate(f"{server.url}{PATH}")


@pytest.mark.parametrize("ranges", [False, True])
def test_a_length_that_is_too_long_is_found_out(make: MakeSources, server: WebServer, pin: Pin, ranges: bool) -> None:
    sources = make(private_hosts=(server.host,), allow_http=True, attempts=2)

    def page(exchange: Exchange, _count: int) -> None:
        start, stop = exchange.asked(len(FILE) + 1000) or (0, 0)
        if ranges:
            told = f"bytes {start}-{stop - 1}/{len(FILE) + 1000}"
            exchange.start(206, ETag='"1"', Content_Length=str(stop - start), Content_Range=told)
            exchange.body(FILE[start:stop])
        else:
            exchange.start(200, ETag='"1"', Content_Length=str(len(FILE) + 1000))
            exchange.body(FILE)

    server.pages[PATH] = page
    with pytest.raises(LoraSourceUnavailable, match=r"broke off|ends early"):
        fetched(sources, f"{server.url}{PATH}", pin)


def test_a_length_that_is_too_short_makes_an_incomplete_file(sources: LoraSources, server: WebServer) -> None:
    def page(exchange: Exchange, _count: int) -> None:
        exchange.start(200, Content_Length=str(len(FILE) - 1000))
        exchange.body(FILE)

    server.pages[PATH] = page
    located = sources.locate(f"{server.url}{PATH}")
    with pytest.raises(LoraInvalid, match="1000 bytes at its end are missing"):
        sources.header(located)


def test_more_bytes_than_were_announced_are_not_taken(sources: LoraSources, server: WebServer, pin: Pin) -> None:
    server.pages[PATH] = File(FILE)
    lora = pin(sources.locate(f"{server.url}{PATH}"))

    def page(exchange: Exchange, _count: int) -> None:
        told = f"bytes 0-{len(FILE) - 1}/{len(FILE)}"
        exchange.start(206, ETag='"1"', Content_Length=str(len(FILE) + 1), Content_Range=told)
        exchange.body(FILE + b"x")

    server.pages[PATH] = page
    with pytest.raises(LoraSourceUnavailable, match="more than it announced"), sources.fetch(lora):
        pass


def test_another_part_than_was_asked_for_is_not_taken(sources: LoraSources, server: WebServer) -> None:
    server.pages[PATH] = lambda exchange, _count: exchange.answer(206, FILE[9:], Content_Range="bytes 9-99/100")
    with pytest.raises(LoraSourceUnavailable, match="another part"):
        sources.locate(f"{server.url}{PATH}")


def test_what_is_no_http_is_unavailable(make: MakeSources, server: WebServer) -> None:
    # No timeout: on a busy machine the answer may be late, and is then called so.
    sources = make(
        private_hosts=(server.host,), allow_http=True, read_timeout_s=30, locate_timeout_s=60, total_timeout_s=60
    )
    server.pages[PATH] = lambda exchange, _count: exchange.body(b"SSH-2.0-OpenSSH_9.2\r\n")
    with pytest.raises(LoraSourceUnavailable, match="does not speak HTTP"):
        sources.locate(f"{server.url}{PATH}")


def test_a_trickle_of_headers_does_not_outlast_the_deadline(make: MakeSources, server: WebServer) -> None:
    def page(exchange: Exchange, _count: int) -> None:
        exchange.body(b"HTTP/1.1 200 OK\r\n")
        while not exchange.server.over.wait(0.05):
            exchange.body(b"X-A: b\r\n")

    server.pages[PATH] = page
    sources = make(private_hosts=(server.host,), allow_http=True, locate_timeout_s=0.4)
    with pytest.raises(LoraSourceUnavailable, match="too long"):
        sources.locate(f"{server.url}{PATH}")
    assert server.count(PATH) == 1


def test_a_trickle_of_bytes_does_not_outlast_the_deadline(make: MakeSources, server: WebServer, pin: Pin) -> None:
    server.pages[PATH] = File(FILE)
    sources = make(private_hosts=(server.host,), allow_http=True, total_timeout_s=0.4)
    lora = pin(sources.locate(f"{server.url}{PATH}"))

    def page(exchange: Exchange, _count: int) -> None:
        last = len(FILE) - 1
        exchange.start(206, ETag='"1"', Content_Length=str(len(FILE)), Content_Range=f"bytes 0-{last}/{len(FILE)}")
        while not exchange.server.over.wait(0.05):
            exchange.body(b"x")

    server.pages[PATH] = page
    with pytest.raises(LoraSourceUnavailable, match="too long"), sources.fetch(lora):
        pass


def test_a_page_instead_of_the_file_at_render_time_is_said_so(
    sources: LoraSources, server: WebServer, pin: Pin
) -> None:
    server.pages[PATH] = File(FILE)
    lora = pin(sources.locate(f"{server.url}{PATH}"))
    server.pages[PATH] = html
    with pytest.raises(LoraInvalid, match="web page"), sources.fetch(lora):
        pass


def test_what_the_reader_of_a_file_raises_is_passed_on(sources: LoraSources, server: WebServer, pin: Pin) -> None:
    server.pages[PATH] = File(FILE)
    lora = pin(sources.locate(f"{server.url}{PATH}"))
    with pytest.raises(LoraNotFound, match="mine"), sources.fetch(lora):
        raise LoraNotFound("mine")
