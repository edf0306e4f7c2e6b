"""Object stores that send a byte a second are left at the floor on speed; header bombs in them are not downloaded."""

import time
from collections.abc import Iterator

import obstore
import pytest
from obstore.store import S3Store

from serve_app.errors import LoraInvalid, LoraSourceUnavailable
from serve_app.images.header import ImageLimits
from serve_app.images.sources.policy import ImagePolicy
from serve_app.images.sources.remote import RemoteImages
from serve_app.loras.sources import Located
from serve_app.net import Deadline, NetPolicy, TooSlow
from serve_app.net.buckets import open_bucket, paced
from tests.fixtures.s3 import S3Server
from tests.fixtures.web_server import Exchange, WebServer, web_server
from tests.serve_app.loras.sources.conftest import MakeSources, Pin, cache_dir, make, pin
from tests.serve_app.loras.sources.servers import lora_bytes

__all__ = ["cache_dir", "make", "pin"]

SIZE = 1 << 20
PROMPT_S = 10  # on a busy machine; without a floor, 30 s of `locate_timeout_s` and an hour of a download
FLOOR = {"speed_window_s": 1.0, "min_bytes_per_s": 1000.0, "read_timeout_s": 5.0}
HEAD = {"ETag": '"1"', "Last_Modified": "Fri, 27 Nov 2026 00:00:00 GMT", "Content_Length": str(SIZE)}


def slow(exchange: Exchange, _count: int) -> None:
    """Answer as S3 does, a byte a second."""
    if exchange.command == "HEAD":
        exchange.start(200, **HEAD)
        return
    asked = exchange.asked(SIZE) or (0, SIZE)
    length = str(asked[1] - asked[0])
    exchange.start(206, **{**HEAD, "Content_Length": length}, Content_Range=f"bytes {asked[0]}-{asked[1] - 1}/{SIZE}")
    while not exchange.server.over.wait(1):
        exchange.body(b"x")


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    """Yield a slow object store, named by this process's environment."""
    with web_server() as server:
        for name, value in S3Server(server.url).environment().items():
            monkeypatch.setenv(name, value)
        for name in ("high_noise.safetensors", "image.png"):
            server.pages[f"/slow/{name}"] = slow
        yield server
        server.stop_waiting()


def test_a_stream_below_the_floor_ends(store: WebServer) -> None:
    policy = NetPolicy(hosts=("s3://slow",), **FLOOR)
    bucket, key = open_bucket("s3://slow/image.png", policy, Deadline(60))
    started = time.monotonic()
    with pytest.raises(TooSlow):
        list(paced(obstore.get(bucket, key), policy))
    assert time.monotonic() - started < PROMPT_S


def test_the_header_of_a_lora(store: WebServer, make: MakeSources) -> None:
    sources = make(hosts=("s3://slow",), **FLOOR, locate_timeout_s=60)
    located = sources.locate("s3://slow/high_noise.safetensors")
    started = time.monotonic()
    with pytest.raises(LoraSourceUnavailable, match="too slowly"):
        sources.header(located)
    assert time.monotonic() - started < PROMPT_S
    gets = [request for request in store.requests if request.method == "GET"]
    assert len(gets) == 1  # another attempt would only take the next share of everyone's time


def test_the_download_of_a_lora(store: WebServer, make: MakeSources, pin: Pin) -> None:
    sources = make(hosts=("s3://slow",), **FLOOR, total_timeout_s=60)
    located: Located = sources.locate("s3://slow/high_noise.safetensors")
    started = time.monotonic()
    with pytest.raises(LoraSourceUnavailable, match="too slowly"), sources.fetch(pin(located)):
        pass
    assert time.monotonic() - started < PROMPT_S


def test_a_control_image(store: WebServer) -> None:
    images = RemoteImages(ImagePolicy(hosts=("s3://slow",), **FLOOR), ImageLimits())
    started = time.monotonic()
    with pytest.raises(TooSlow):
        images.read("s3://slow/image.png", token=None, deadline=Deadline(60))
    assert time.monotonic() - started < PROMPT_S


def test_a_header_bomb_is_not_downloaded(s3: S3Server, make: MakeSources) -> None:
    s3.create("loras")
    bomb = (84_000_000).to_bytes(8, "little") + b"{" + b" " * 84_000_000
    obstore.put(S3Store.from_url("s3://loras"), "bomb.safetensors", bomb)
    sources = make(hosts=("s3://loras",), locate_timeout_s=30, read_timeout_s=10)
    located = sources.locate("s3://loras/bomb.safetensors")
    with pytest.raises(LoraInvalid, match="84000000 bytes"):
        sources.header(located)


def test_a_good_file_arrives_whole(s3: S3Server, make: MakeSources, pin: Pin) -> None:
    s3.create("loras")
    content = lora_bytes(note="x" * 3_000_000)
    obstore.put(S3Store.from_url("s3://loras"), "good.safetensors", content)
    sources = make(hosts=("s3://loras",), locate_timeout_s=30, total_timeout_s=30, read_timeout_s=10)
    with sources.fetch(pin(sources.locate("s3://loras/good.safetensors"))) as file:
        assert file.path.read_bytes() == content
