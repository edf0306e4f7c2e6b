"""One cache, many threads and processes."""

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from serve_app.errors import LoraSourceUnavailable
from serve_app.loras.cache import LoraCache, Partial
from serve_app.loras.sources import LoraSources
from serve_app.spec import LoraFile
from tests.fixtures.web_server import Exchange, File, WebServer, sha256
from tests.serve_app.loras.sources.conftest import MakeSources, Pin
from tests.serve_app.loras.sources.servers import lora_bytes

FILE = lora_bytes()
PATH = "/a.safetensors"


class Fetcher:
    """A process that fetches a file when told to, and holds it until told otherwise."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def tell(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("go on\n")
        self._process.stdin.flush()

    def said(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def fetcher(cache: Path, server: WebServer, lora: LoraFile) -> Iterator[Fetcher]:
    command = [sys.executable, "-m", "tests.serve_app.loras.sources.fetcher"]
    arguments = [str(cache), server.host, lora.model_dump_json()]
    with subprocess.Popen([*command, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        found = Fetcher(process)
        try:
            yield found
        finally:
            found.kill()


def slowly(exchange: Exchange, count: int) -> None:
    """Long enough in coming for others to want it meanwhile."""
    time.sleep(0.2)
    File(FILE)(exchange, count)


def pinned(sources: LoraSources, server: WebServer, pin: Pin) -> LoraFile:
    """Return the file located; the requests for it are forgotten."""
    server.pages[PATH] = File(FILE)
    lora = pin(sources.locate(f"{server.url}{PATH}"))
    server.requests.clear()
    return lora


def test_threads_that_want_one_file_download_it_once(sources: LoraSources, server: WebServer, pin: Pin) -> None:
    lora = pinned(sources, server, pin)
    server.pages[PATH] = slowly

    def fetch(_index: int) -> str | None:
        with sources.fetch(lora) as file:
            return file.sha256

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(fetch, range(8))) == {sha256(FILE)}
    assert server.count(PATH) == 1


@pytest.mark.slow
def test_processes_that_want_one_file_download_it_once(
    sources: LoraSources, server: WebServer, pin: Pin, cache_dir: Path
) -> None:
    lora = pinned(sources, server, pin)
    server.pages[PATH] = slowly
    with fetcher(cache_dir, server, lora) as one, fetcher(cache_dir, server, lora) as two:
        assert (one.said(), two.said()) == ("ready", "ready")
        one.tell()
        two.tell()
        assert one.said() == two.said() == sha256(FILE)
    assert server.count(PATH) == 1


@pytest.mark.slow
def test_a_download_whose_process_was_killed_is_resumed(
    sources: LoraSources, server: WebServer, pin: Pin, cache_dir: Path
) -> None:
    lora = pinned(sources, server, pin)
    server.pages[PATH] = page = File(FILE, breaks=[200_000], stalls=True)
    partial = cache_dir / "partial" / lora.content
    with fetcher(cache_dir, server, lora) as process:
        process.tell()
        while not partial.exists() or partial.stat().st_size < 200_000:
            time.sleep(0.01)
        process.kill()
    assert not page.breaks
    with sources.fetch(lora) as file:
        assert file.path.read_bytes() == FILE
    assert server.ranges(PATH) == ["bytes=0-", "bytes=200000-"]


@pytest.mark.slow
def test_a_file_in_use_by_another_process_stays(
    sources: LoraSources, server: WebServer, pin: Pin, cache_dir: Path
) -> None:
    lora = pinned(sources, server, pin)
    blob = cache_dir / "blobs" / sha256(FILE)
    full = LoraCache(cache_dir, len(FILE))

    def fill(partial: Partial) -> None:
        partial.reserve(1)
        partial.append(b"x")

    def want_another() -> None:
        with full.hold(sha256(b"x"), fill, "x", wait_s=1):
            pass

    with fetcher(cache_dir, server, lora) as process:
        process.tell()
        assert (process.said(), process.said()) == ("ready", sha256(FILE))
        with pytest.raises(LoraSourceUnavailable, match="in use"):
            want_another()
        assert blob.exists()
    want_another()  # the process is gone, and its use with it
    assert not blob.exists()


def test_a_file_whose_download_takes_too_long_elsewhere_is_not_waited_for(
    make: MakeSources, server: WebServer, pin: Pin
) -> None:
    sources = make(private_hosts=(server.host,), allow_http=True, total_timeout_s=0.2, read_timeout_s=5)
    lora = pinned(sources, server, pin)
    patient = make(private_hosts=(server.host,), allow_http=True, read_timeout_s=1, attempts=1)
    server.pages[PATH] = lambda exchange, _count: exchange.wait()

    def fetch(which: LoraSources) -> str:
        with pytest.raises(LoraSourceUnavailable) as caught, which.fetch(lora):
            pass
        return caught.value.message

    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(fetch, patient)
        while not server.count(PATH):
            time.sleep(0.01)
        assert "still being downloaded" in fetch(sources)
        assert "took too long" in first.result()
