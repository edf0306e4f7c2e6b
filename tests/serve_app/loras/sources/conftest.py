"""Servers, and sources that may reach them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from serve_app.loras.cache import LoraCache
from serve_app.loras.sources import Located, LoraSources, SourcePolicy
from serve_app.spec import Expert, LoraFile
from tests.fixtures.web_server import WebServer, sha256, web_server
from tests.serve_app.loras.sources.servers import HubStandIn, lora_bytes

# Long enough for a busy machine: a test about slowness sets its own.
POLICY: dict[str, Any] = {
    "connect_timeout_s": 10,
    "read_timeout_s": 20,
    "locate_timeout_s": 60,
    "total_timeout_s": 60,
    "backoff_s": 0.01,
    "max_backoff_s": 0.05,
}
MakeSources = Callable[..., LoraSources]
Pin = Callable[[Located], LoraFile]


@pytest.fixture
def server() -> Iterator[WebServer]:
    with web_server() as server:
        yield server


@pytest.fixture
def other() -> Iterator[WebServer]:
    """Yield a second server, on another port."""
    with web_server() as server:
        yield server


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def make(tmp_path: Path, cache_dir: Path) -> MakeSources:
    """Return sources with a policy of which only what matters is given."""

    def made(**policy: Any) -> LoraSources:
        root = tmp_path / "root"
        root.mkdir(exist_ok=True)
        return LoraSources(root, SourcePolicy(**{**POLICY, **policy}), LoraCache(cache_dir, 1 << 30))

    return made


@pytest.fixture
def sources(make: MakeSources, server: WebServer) -> LoraSources:
    """Return sources that may reach `server`, over plain http."""
    return make(private_hosts=(server.host,), allow_http=True)


@pytest.fixture
def hub(server: WebServer, other: WebServer) -> HubStandIn:
    """Return the Hub, with one file in a repository; the CDN is another origin."""
    stand_in = HubStandIn(server, other, {"high_noise.safetensors": lora_bytes()})
    stand_in.publish()
    return stand_in


@pytest.fixture
def hub_sources(make: MakeSources, hub: HubStandIn) -> LoraSources:
    """Return sources whose Hub is the stand-in."""
    return make(hub_endpoint=hub.server.url, private_hosts=(hub.cdn.host,), allow_http=True)


@pytest.fixture
def pin() -> Pin:
    """Return a located file as a render's spec holds it."""

    def pinned(located: Located) -> LoraFile:
        return LoraFile(
            expert=Expert.HIGH,
            reference=located.reference,
            location=located.location,
            content=located.content,
            sha256=located.sha256,
            multiplier=1.0,
        )

    return pinned


def fetched(sources: LoraSources, reference: str, pin: Pin) -> bytes:
    """Return what is rendered with for a client who names `reference`."""
    with sources.fetch(pin(sources.locate(reference))) as file:
        content = file.path.read_bytes()
        assert file.sha256 == sha256(content)
        return content
