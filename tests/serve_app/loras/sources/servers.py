"""Real servers on loopback, well-behaved and otherwise."""

import hashlib
import json
import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from threading import Event, Lock, Thread
from typing import Any

from tests.serve_app.loras.files import raw

PIECE = 16 << 10


def lora_bytes(seed: int = 0, floats: int = 100_000, **metadata: str) -> bytes:
    """A safetensors file of about 400 kB."""
    entry = {"dtype": "F32", "shape": [floats], "data_offsets": [0, 4 * floats]}
    return raw({"__metadata__": metadata, "a": entry}, Random(seed).randbytes(4 * floats))


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]  # names in lower case


class Exchange(BaseHTTPRequestHandler):
    """One request, and the ways to answer it."""

    protocol_version = "HTTP/1.1"
    server: "_Server"

    def _handle(self) -> None:
        self.close_connection = True
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, self.path, headers)
        with self.server.lock:
            self.server.requests.append(request)
            count = sum(known.path == self.path for known in self.server.requests)
        page = self.server.pages.get(self.path.partition("?")[0])
        if page is None:
            self.answer(404, b"no such page")
        else:
            page(self, count)

    do_GET = do_HEAD = do_POST = _handle  # noqa: N815  the names that http.server looks for

    def answer(self, status: int, body: bytes = b"", /, **headers: str) -> None:
        """A whole answer with its true length."""
        self.start(status, **{"Content_Length": str(len(body)), **headers})
        self.body(body)

    def start(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def body(self, body: bytes) -> None:
        if self.command != "HEAD":
            self.wfile.write(body)
            self.wfile.flush()

    def asked(self, size: int) -> tuple[int, int] | None:
        """[start, stop) of the range that was asked for."""
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        return None if found is None else (int(found[1]), min(size, int(found[2]) + 1) if found[2] else size)

    def wait(self) -> None:
        """Stall until the test is over."""
        self.server.over.wait(10)

    def log_message(self, *_args: Any) -> None:
        """Keeps quiet."""


Page = Callable[[Exchange, int], None]  # the count is of the requests for the page so far, this one included


@dataclass
class File:
    """A file, served as told. `breaks` are offsets: the first answer ends at the first of them, and so on."""

    content: bytes
    etag: str | None = '"1"'
    ranges: bool = True
    last_modified: str | None = None
    content_type: str = "application/octet-stream"
    breaks: list[int] = field(default_factory=list)
    stalls: bool = False  # instead of breaking off
    extra: dict[str, str] = field(default_factory=dict)

    def __call__(self, exchange: Exchange, count: int) -> None:
        size = len(self.content)
        asked = exchange.asked(size) if self.ranges else None
        start, stop = asked or (0, size)
        headers = {"Content_Type": self.content_type, "Content_Length": str(stop - start), **self.extra}
        if self.etag is not None:
            headers["ETag"] = self.etag
        if self.last_modified is not None:
            headers["Last_Modified"] = self.last_modified
        if asked is None:
            exchange.start(200, **headers)
        elif start >= size:
            exchange.answer(416, Content_Range=f"bytes */{size}")
            return
        else:
            exchange.start(206, Content_Range=f"bytes {start}-{stop - 1}/{size}", **headers)
        self._send(exchange, start, stop)

    def _send(self, exchange: Exchange, start: int, stop: int) -> None:
        until = self.breaks.pop(0) if self.breaks and self.breaks[0] < stop else stop
        for at in range(start, until, PIECE):
            exchange.body(self.content[at : min(at + PIECE, until)])
        if until < stop and self.stalls:
            exchange.wait()


def redirect(location: str, status: int = 302) -> Page:
    return lambda exchange, _count: exchange.answer(status, Location=location)


def html(exchange: Exchange, _count: int) -> None:
    exchange.answer(200, b"<!DOCTYPE html><html>Sign in</html>", Content_Type="text/html; charset=utf-8")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Exchange)
        self.pages: dict[str, Page] = {}
        self.requests: list[Request] = []
        self.lock = Lock()
        self.over = Event()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is what many tests want."""


class WebServer:
    """Pages by path, and what was asked for."""

    def __init__(self, server: _Server, scheme: str) -> None:
        self.pages = server.pages
        self.requests = server.requests
        self.port = server.server_port
        self.host = f"127.0.0.1:{self.port}"
        self.url = f"{scheme}://{self.host}"

    def count(self, path: str) -> int:
        return sum(request.path.partition("?")[0] == path for request in self.requests)

    def ranges(self, path: str) -> list[str]:
        return [request.headers.get("range", "") for request in self.requests if request.path == path]


@contextmanager
def web_server(certificate: Path | None = None) -> Iterator[WebServer]:
    """`certificate` is a PEM file with its key; without one the server speaks plain http."""
    with _Server() as server:
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = Thread(target=lambda: server.serve_forever(poll_interval=0.01))
        thread.start()
        yield WebServer(server, "http" if certificate is None else "https")
        server.over.set()
        server.shutdown()
        thread.join()


COMMIT = "0123456789abcdef0123456789abcdef01234567"
HUB_TOKEN = "hf_thetokenofthetest"  # noqa: S105


@dataclass
class HubStandIn:
    """As much of the Hub's API as huggingface_hub needs for one model repository, and the CDN behind it."""

    server: WebServer
    cdn: WebServer
    files: dict[str, bytes]
    repository: str = "me/pair"
    commit: str = COMMIT
    branches: tuple[str, ...] = ("main",)
    gated: bool = False
    small: tuple[str, ...] = ()  # files that git itself holds: no SHA-256, and no CDN

    def publish(self) -> None:
        """Have the servers answer for the files."""
        for revision in (*self.branches, self.commit):
            escaped = revision.replace("/", "%2F")
            self.server.pages[f"/api/models/{self.repository}/revision/{escaped}"] = self._info
            for name in self.files:
                self.server.pages[f"/{self.repository}/resolve/{escaped}/{name}"] = self._resolve(name)
        self.server.pages[f"/api/models/{self.repository}"] = self._info
        for content in self.files.values():
            self.cdn.pages[f"/{sha256(content)}"] = File(content)

    def _info(self, exchange: Exchange, _count: int) -> None:
        siblings = [{"rfilename": name} for name in self.files]
        body = {"id": self.repository, "sha": self.commit, "siblings": siblings}
        exchange.answer(200, json.dumps(body).encode(), Content_Type="application/json")

    def _resolve(self, name: str) -> Page:
        def page(exchange: Exchange, count: int) -> None:
            content = self.files[name]
            known = {"X_Repo_Commit": self.commit}
            if self.gated and exchange.headers.get("Authorization") != f"Bearer {HUB_TOKEN}":
                exchange.answer(403, X_Error_Code="GatedRepo", X_Error_Message="Access is restricted")
            elif name in self.small:
                File(content, etag='"gitblob"', extra=known)(exchange, count)
            else:
                exchange.answer(
                    302,
                    Location=f"{self.cdn.url}/{sha256(content)}?X-Signature=secret",
                    X_Linked_Etag=f'"{sha256(content)}"',
                    X_Linked_Size=str(len(content)),
                    **known,
                )

        return page
