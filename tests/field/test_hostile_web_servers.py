"""Whatever a web server answers becomes a documented error, or the file: never a 500."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from serve_app.errors import LoraSourceUnavailable, ServiceError
from serve_app.loras.cache import LoraCache
from serve_app.loras.sources import LoraSources, SourcePolicy
from serve_app.net.headers import content_range, natural, retry_after_s
from tests.client import body
from tests.fixtures.api import ServeApi
from tests.serve_app.loras.sources.conftest import POLICY, MakeSources
from tests.serve_app.loras.sources.servers import lora_bytes

FILE = lora_bytes(floats=10)
LONG = "9" * 5000
NAMES = st.sampled_from(
    [
        *(
            "Content-Range",
            "Content-Length",
            "Content-Type",
            "Content-Encoding",
            "Content-Disposition",
            "Content-Location",
        ),
        *("Retry-After", "Last-Modified", "ETag", "Location", "Date", "Expires", "Age", "Accept-Ranges", "Connection"),
        *("Transfer-Encoding", "Set-Cookie", "Keep-Alive", "Upgrade", "WWW-Authenticate", "Link", "Vary", "Trailer"),
        *("X-Repo-Commit", "X-Linked-Etag", "X-Linked-Size", "X-Error-Code", "X-Error-Message"),
    ]
)
STATUSES = st.sampled_from(
    [
        *(100, 101, 103, 200, 201, 204, 206, 226, 299, 300, 301, 302, 303, 304, 305, 307, 308, 400, 401, 403, 404),
        *(406, 407, 408, 410, 412, 413, 416, 418, 425, 429, 451, 499, 500, 502, 503, 504, 507, 599, 600, 999),
    ]
)
VALUES = st.sampled_from(
    [
        *(
            LONG,
            "9" * 400,
            f"bytes {LONG}-{LONG}/{LONG}",
            f"bytes 0-{LONG}/*",
            "bytes 0-9/5",
            "bytes 9-0/99",
            "bytes */9",
        ),
        *("-1", "1.5", "0x10", "1e400", "nan", "\u0661", "٣", "+5", "5, 5", "5, 6", " ", "", "inf", "bytes 0-0/1"),
        *("Fri, 31 Dec 99999999 23:59:59 GMT", "Thu, 01 Jan 0000 00:00:00 GMT", "32 Foo 2020 99:99:99 +99999999"),
        *("Mon, 1 Jan -5 0:0:0", "31 Feb 2023 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 -9999"),
        *(
            "gzip",
            "br, gzip",
            "identity",
            "chunked",
            "gzip, chunked",
            "text/html; charset=\xff",
            "bytes",
            "none",
            "close",
        ),
        *("http://[::1", "http://[::1]:99999/", "//", "http://\xe4.example/", "ftp://x/y", "https:///x", "\\\\host\\x"),
        *(
            "https://xn--/",
            "http://a.b:port/",
            "https://user:pw@127.0.0.1/",
            "javascript:alert(1)",
            "/" * 9000,
            "?",
            "#",
        ),
        *(
            "https://\u2100.example/",
            "http://127.1/",
            "http://0x7f.1/",
            "..//..//",
            "%zz",
            "http://%00/",
            "https://a" * 500,
        ),
        *('attachment; filename="\xff\x00"', "attachment; filename*=UTF-8''%ff%fe", "filename=" + "a/" * 5000, 'W/"x"'),
        *(
            '"' * 3000,
            "\t",
            "a" * 60_000,
            "a, " * 5000,
            "GatedRepo",
            "RepoNotFound",
            "EntryNotFound",
            "RevisionNotFound",
        ),
    ]
) | st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=30)
HEADERS = st.lists(st.tuples(NAMES, VALUES), max_size=5)
BODIES = st.sampled_from([FILE, b"", FILE[:40], b"<html>", b"5\r\nhello\r\n0\r\n\r\n", b"ffffffffffffffffff\r\n"])
ANSWERS = st.builds(
    lambda status, headers, content: (
        b"HTTP/1.1 %d Yes\r\n" % status
        + b"".join(f"{name}: {value}\r\n".encode("latin-1", "replace") for name, value in headers)
        + b"\r\n"
        + content
    ),
    STATUSES,
    HEADERS,
    BODIES,
)


class RawServer:
    """Answers every request with the same bytes, and hangs up."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self.answer = b""
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                try:
                    while b"\r\n\r\n" not in connection.recv(65536):
                        pass
                    connection.sendall(self.answer)
                    connection.shutdown(socket.SHUT_WR)
                    connection.recv(1)
                except OSError:
                    pass  # a client that has seen enough hangs up


@contextmanager
def raw_server() -> Iterator[RawServer]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = RawServer(listening)
        thread = Thread(target=server.serve)
        thread.start()
        yield server
        listening.shutdown(socket.SHUT_RDWR)
    thread.join()


@pytest.fixture
def raw() -> Iterator[RawServer]:
    with raw_server() as server:
        yield server


@pytest.fixture
def make(tmp_path: Path) -> MakeSources:
    """Return sources that may reach loopback, ask once, and wait for 0.3 seconds."""

    def made(**policy: Any) -> LoraSources:
        allowed = {"private_hosts": ("127.0.0.1",), "allow_http": True, "attempts": 1, "max_redirects": 2}
        policy = {**POLICY, "read_timeout_s": 0.3, **allowed, **policy}
        return LoraSources(tmp_path, SourcePolicy(**policy), LoraCache(tmp_path / "cache", 1 << 30))

    return made


def must_be_documented(sources: LoraSources, reference: str) -> None:
    try:
        sources.header(sources.locate(reference))
    except ServiceError as error:
        assert error.status in (400, 503)
        assert error.code in {"LORA_NOT_FOUND", "LORA_PATH_REFUSED", "LORA_INVALID", "LORA_SOURCE_UNAVAILABLE"}


INTERIM = b"HTTP/1.1 102 Processing\r\n\r\n"


@pytest.mark.parametrize(("interim", "taken"), [(3, True), (20_000, False)])
def test_interim_answers_without_end(make: MakeSources, raw: RawServer, interim: int, *, taken: bool) -> None:
    # Each is parsed, and none is the answer: 20,000 cost four seconds of CPU.
    raw.answer = INTERIM * interim + b"HTTP/1.1 200 OK\r\n\r\n" + FILE
    sources = make(read_timeout_s=20)
    if taken:
        sources.header(sources.locate(f"{raw.url}/a.safetensors"))
    else:
        with pytest.raises(LoraSourceUnavailable):
            sources.locate(f"{raw.url}/a.safetensors")


def in_one_answer(**headers: str) -> bytes:
    lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items()]
    return b"HTTP/1.1 206 Partial\r\n" + "".join(lines).encode("latin-1") + b"\r\n" + FILE


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(in_one_answer(Content_Range=f"bytes {LONG}-{LONG}/{LONG}"))
@example(in_one_answer(Content_Length=LONG))
@example(b"HTTP/1.1 429 No\r\nRetry-After: " + b"9" * 400 + b"\r\n\r\n")
@example(b"HTTP/1.1 503 No\r\nRetry-After: Fri, 31 Dec 99999999 23:59:59 GMT\r\n\r\n")
@example(b"HTTP/1.1 302 Found\r\nLocation: /b.safetensors\r\nSet-Cookie: name=\xe9\r\n\r\n")
@given(ANSWERS)
def test_of_a_web_server(make: MakeSources, raw: RawServer, answer: bytes) -> None:
    raw.answer = answer
    sources = make()
    must_be_documented(sources, f"{raw.url}/a.safetensors")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ANSWERS, st.sampled_from(["hf://me/pair/a.safetensors", "hf://me/pair"]))
def test_of_a_hub(make: MakeSources, raw: RawServer, answer: bytes, reference: str) -> None:
    raw.answer = answer
    sources = make(hub_endpoint=raw.url)
    must_be_documented(sources, reference)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "sha", "siblings", "rfilename", "size", "lfs", "tags"]), inner, max_size=5
        )
    ),
    max_leaves=10,
)


FILES = st.fixed_dictionaries({}, optional={"rfilename": JSON | st.just("a.safetensors"), "size": JSON, "lfs": JSON})
LISTINGS = st.fixed_dictionaries(
    {"id": JSON | st.just("me/pair")},
    optional={
        "sha": JSON | st.just("0" * 40),
        "siblings": JSON | st.lists(FILES | JSON, max_size=2),
        "lastModified": JSON,
    },
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(JSON | LISTINGS)
def test_of_a_hub_that_lists_nonsense(make: MakeSources, raw: RawServer, listing: object) -> None:
    content = json.dumps(listing).encode()
    raw.answer = (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(content) + content
    )
    sources = make(hub_endpoint=raw.url)
    must_be_documented(sources, "hf://me/pair")


@given(st.text(max_size=60) | VALUES)
def test_no_parser_of_a_header_raises(text: str) -> None:
    for parser in (natural, content_range, retry_after_s):
        parser(text)


@given(st.integers(0, 10**18 - 1), st.integers(0, 10**18 - 1), st.integers(0, 10**18 - 1))
def test_a_range_is_read_as_it_was_written(start: int, more: int, rest: int) -> None:
    last, total = start + more, start + more + 1 + rest
    found = content_range(f"bytes {start}-{last}/{total}")
    if len(str(total)) <= 18:
        assert found is not None
        assert (found.start, found.stop, found.total) == (start, last + 1, total)


@pytest.mark.parametrize(
    "answer",
    [
        in_one_answer(Content_Range=f"bytes 0-{LONG}/{LONG}", ETag='"1"'),
        in_one_answer(Content_Length=LONG),
        b"HTTP/1.1 429 No\r\nRetry-After: " + b"9" * 400 + b"\r\n\r\n",
        b"HTTP/1.1 503 No\r\nRetry-After: Fri, 31 Dec 99999999 23:59:59 GMT\r\n\r\n",
    ],
)
async def test_over_http(serve_api: ServeApi, raw: RawServer, answer: bytes) -> None:
    raw.answer = answer
    async with serve_api(lora_private_hosts=("127.0.0.1",), lora_allow_http=True) as api:
        sent = body()
        sent["loras"][0]["path"] = f"{raw.url}/a.safetensors"
        found = await api.post(sent)
        assert found.status_code == 503
        assert found.json()["detail"]["error"]["code"] == "LORA_SOURCE_UNAVAILABLE"
        assert int(found.headers["Retry-After"]) > 0
