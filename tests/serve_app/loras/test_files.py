"""The Generator's door: what is held is verified, and nothing is read twice."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serve_app.errors import LoraChanged, LoraNotFetched, LoraNotLoaded
from serve_app.loras.cache import LoraCache
from serve_app.loras.files import LoraFiles
from serve_app.loras.library import LoraLibrary
from serve_app.loras.sources import LoraSources, SourcePolicy
from serve_app.spec import Expert, LoraFile
from tests.fixtures.web_server import File, WebServer, sha256, web_server
from tests.serve_app.loras.files import TINY, full, save

PATH = "/a.safetensors"


@pytest.fixture
def server() -> Iterator[WebServer]:
    with web_server() as server:
        yield server


@pytest.fixture
def sources(tmp_path: Path, server: WebServer) -> LoraSources:
    policy = SourcePolicy(private_hosts=(server.host,), allow_http=True, backoff_s=0.01, total_timeout_s=5)
    return LoraSources(tmp_path, policy, LoraCache(tmp_path / "cache", 1 << 30))


@pytest.fixture
def files(tmp_path: Path, sources: LoraSources) -> LoraFiles:
    return LoraFiles(sources, LoraLibrary(tmp_path, TINY, at_rest_s=0))


@pytest.fixture
def lora(tmp_path: Path) -> LoraFile:
    """Return a local file."""
    path = save(tmp_path / "a.safetensors", full())
    return pinned("a.safetensors", str(path), sha256(path.read_bytes()))


def pinned(reference: str, location: str, content: str) -> LoraFile:
    known = content if not content.startswith("etag-") else None
    return LoraFile(
        expert=Expert.HIGH, reference=reference, location=location, content=content, sha256=known, multiplier=1.0
    )


@pytest.fixture
def remote(sources: LoraSources, server: WebServer, tmp_path: Path) -> LoraFile:
    """Return a file on the server, accepted by its header."""
    server.pages[PATH] = File(save(tmp_path / "b", full()).read_bytes())
    located = sources.locate(f"{server.url}{PATH}")
    return pinned(located.reference, located.location, located.content)


class Opened:
    """How often files under a folder are opened, by Python's own audit events (PEP 578)."""

    def __init__(self, folder: Path) -> None:
        self.counted = 0
        self._folder = str(folder)
        sys.addaudithook(self._hook)

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        self.counted += event == "open" and str(args[0]).startswith(self._folder)


def test_a_remote_file_is_downloaded_once_and_read_once(
    files: LoraFiles, remote: LoraFile, server: WebServer, tmp_path: Path
) -> None:
    opened = Opened(tmp_path / "cache" / "blobs")
    with files.hold(remote, strict=True, token=None) as first:
        assert first.sha256 == first.path.name == sha256(first.path.read_bytes())
    requests, before = len(server.requests), opened.counted
    with files.hold(remote, strict=True, token=None) as second:
        second.check_unchanged()
        assert second.contents is first.contents
        assert second.header is first.header
    assert (len(server.requests), opened.counted - before) == (requests, 1)  # opened once, to be locked


def test_the_second_hold_of_a_remote_file_needs_not_one_byte_of_it(files: LoraFiles, remote: LoraFile) -> None:
    with files.hold(remote, strict=True, token=None) as first:
        path = first.path
    signature = path.stat()
    path.write_bytes(b"poison")  # would be refused if it were looked at
    with files.hold(remote, strict=True, token=None) as second:
        assert second.contents is first.contents
    assert path.stat().st_ino == signature.st_ino


def test_others_who_use_a_cached_file_do_not_make_it_another(
    files: LoraFiles, remote: LoraFile, sources: LoraSources
) -> None:
    with files.hold(remote, strict=True, token=None) as held:
        for _ in range(2):
            with sources.fetch(remote):
                pass
        held.check_unchanged()


def test_a_touched_blob_keeps_its_verdict(files: LoraFiles, remote: LoraFile) -> None:
    with files.hold(remote, strict=True, token=None) as first:
        os.utime(first.path, (0, 0))
    with files.hold(remote, strict=True, token=None) as second:
        assert second.header is first.header


def test_a_remote_file_that_is_no_lora_is_refused_each_time(
    files: LoraFiles, sources: LoraSources, server: WebServer, tmp_path: Path
) -> None:
    bad = full()
    bad["diffusion_model.blocks.0.ffn.0.lora_A.weight"][:] = float("nan")
    server.pages[PATH] = File(save(tmp_path / "b", bad).read_bytes())
    located = sources.locate(f"{server.url}{PATH}")
    for _ in range(2):
        with (
            pytest.raises(LoraNotFetched, match="NaN"),
            files.hold(pinned(located.reference, located.location, located.content), strict=True, token=None),
        ):
            pass


def test_a_local_file_is_hashed_and_parsed_once(files: LoraFiles, lora: LoraFile) -> None:
    opened = Opened(Path(lora.location).parent)
    for _ in range(3):
        with files.hold(lora, strict=True, token=None) as held:
            held.check_unchanged()
            assert held.sha256 == lora.sha256
    assert opened.counted == 2


def test_the_values_of_a_local_file_are_not_checked_again(files: LoraFiles, tmp_path: Path) -> None:
    """Its SHA-256 says that they are the ones which were checked; to look at 300 MB takes a fifth of a second."""
    path = save(tmp_path / "a", full())
    broken = bytearray(path.read_bytes())
    broken[-2:] = b"\xff\xff"  # a NaN, which no accepted file has
    path.write_bytes(broken)
    lora = pinned("a", str(path), sha256(bytes(broken)))
    with files.hold(lora, strict=True, token=None) as held:
        assert held.sha256 == lora.sha256


def test_a_local_file_that_was_swapped_after_acceptance_is_noticed(files: LoraFiles, lora: LoraFile) -> None:
    save(Path(lora.location), full(rank=2))
    with pytest.raises(LoraChanged, match="replaced"), files.hold(lora, strict=True, token=None):
        pass
    Path(lora.location).write_text("no")
    with pytest.raises(LoraChanged, match="replaced"), files.hold(lora, strict=True, token=None):
        pass
    Path(lora.location).unlink()
    with pytest.raises(LoraChanged, match="no longer be read"), files.hold(lora, strict=True, token=None):
        pass


def test_a_local_file_that_is_swapped_while_it_is_held_is_noticed(
    files: LoraFiles, lora: LoraFile, tmp_path: Path
) -> None:
    other = save(tmp_path / "other", full(rank=2))
    with files.hold(lora, strict=True, token=None) as held:
        held.check_unchanged()
        shutil.move(other, lora.location)
        with pytest.raises(LoraChanged, match="replaced"):
            held.check_unchanged()


def test_a_local_file_that_is_no_lora_cannot_be_loaded(files: LoraFiles, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("no")
    lora = pinned("a", str(path), sha256(b"no"))
    with pytest.raises(LoraNotLoaded, match="high noise expert"), files.hold(lora, strict=True, token=None):
        pass
