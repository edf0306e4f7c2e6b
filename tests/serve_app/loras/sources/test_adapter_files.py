"""PEFT's adapter_config.json beside a file on the Hub or on a web server, as submission finds it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from serve_app.errors import LoraSourceUnavailable
from serve_app.loras.library import LoraLibrary, ResolvedLora
from serve_app.loras.resolver import Asker, LoraResolver
from serve_app.loras.siblings import NO_SIBLINGS
from serve_app.loras.sources import LoraSources
from serve_app.net import Bulkhead, ShareLimits
from tests.fixtures.web_server import File, WebServer, sha256
from tests.serve_app.loras.files import CARD, TINY, full, save
from tests.serve_app.loras.sources.servers import COMMIT, HubStandIn

NAME = "adapter_model.safetensors"
CONFIG = json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 32}).encode()


@pytest.fixture
def lora(tmp_path: Path) -> bytes:
    tensors = {key.replace("diffusion_model.", "base_model.model."): value for key, value in full().items()}
    return save(tmp_path / "made", tensors, {"format": "pt"}).read_bytes()


def resolver(sources: LoraSources, root: Path) -> LoraResolver:
    return LoraResolver(LoraLibrary(root, TINY), sources, CARD, Bulkhead(ShareLimits()), NO_SIBLINGS)


async def resolve(sources: LoraSources, root: Path, reference: str) -> ResolvedLora:
    return await resolver(sources, root).resolve(reference, asker=Asker("me", None, None), expert=None, strict=True)


def scales(found: ResolvedLora) -> set[float | None]:
    return {getattr(change, "scale", None) for change in found.contents.changes()}


@pytest.mark.parametrize("folder", ["", "high/"])
async def test_on_the_hub_it_is_taken_from_the_same_commit(
    folder: str, hub_sources: LoraSources, hub: HubStandIn, lora: bytes, tmp_path: Path
) -> None:
    files = {f"{folder}{NAME}": lora, f"{folder}adapter_config.json": CONFIG, "low/adapter_config.json": b"{}"}
    replace(hub, files=files).publish()
    found = await resolve(hub_sources, tmp_path, f"hf://me/pair/{folder}{NAME}")
    assert scales(found) == {8.0}
    assert found.content.startswith(f"{sha256(lora)}+")
    assert f"/me/pair/resolve/{COMMIT}/{folder}adapter_config.json" in [request.path for request in hub.server.requests]


async def test_without_one_the_file_is_taken_as_it_is_with_a_remark(
    hub_sources: LoraSources, hub: HubStandIn, lora: bytes, tmp_path: Path
) -> None:
    replace(hub, files={NAME: lora}).publish()
    found = await resolve(hub_sources, tmp_path, f"hf://me/pair/{NAME}")
    assert scales(found) == {None}
    assert found.content == sha256(lora)
    assert "adapter_config.json" in found.contents.remarks[0]


async def test_on_a_web_server_it_is_looked_for_in_the_same_folder(
    sources: LoraSources, server: WebServer, lora: bytes, tmp_path: Path
) -> None:
    server.pages[f"/some/folder/{NAME}"] = File(lora)
    server.pages["/some/folder/adapter_config.json"] = File(CONFIG)
    found = await resolve(sources, tmp_path, f"{server.url}/some/folder/{NAME}?signature=x")
    assert scales(found) == {8.0}
    pinned = found.pinned(CARD.experts[0], 1.0)
    with sources.fetch(pinned) as file:
        assert file.sha256 == sha256(lora)


async def test_what_a_server_does_not_answer_is_not_taken_for_none(
    sources: LoraSources, server: WebServer, lora: bytes, tmp_path: Path
) -> None:
    server.pages[f"/{NAME}"] = File(lora)
    server.pages["/adapter_config.json"] = lambda exchange, _count: exchange.answer(503)
    with pytest.raises(LoraSourceUnavailable):
        await resolve(sources, tmp_path, f"{server.url}/{NAME}")
