"""Which LoRAs stay in memory, and what is read."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import save_file

from deployments.wan.loras.resident import ResidentLoras
from serve_app.errors import LoraChanged, LoraNotLoaded
from serve_app.loras.formats import header as safetensors_file
from serve_app.loras.formats import parser as layout
from serve_app.loras.formats import read_header
from serve_app.models.architecture import WanArchitecture
from serve_app.spec import Expert, LoraFile
from tests.deployments.wan.conftest import lora_file
from tests.loras.layouts import write

CPU = torch.device("cpu")


@pytest.fixture
def architecture(tiny_experts: Path) -> WanArchitecture:
    return WanArchitecture.from_config(WanTransformer3DModel.load_config(tiny_experts, subfolder="transformer"))


@pytest.fixture
def loras(tmp_path: Path) -> list[LoraFile]:
    """Files of one size."""
    folders = [tmp_path / str(number) for number in range(4)]
    for folder in folders:
        folder.mkdir()
    return [lora_file(Expert.HIGH, write("ai-toolkit", folder, seed=seed).path) for seed, folder in enumerate(folders)]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes the files that are read."""
    names: list[str] = []

    def note(path: Path, name: str) -> Any:
        names.append(path.parent.name)
        return read_header(path, name)

    monkeypatch.setattr("deployments.wan.loras.resident.read_header", note)
    return names


@pytest.fixture
def size(architecture: WanArchitecture, loras: list[LoraFile]) -> int:
    return ResidentLoras(architecture, CPU, host_bytes=2**30).get(loras[0], strict=True).size


@pytest.mark.parametrize(("room", "again"), [(4, []), (3, ["0"]), (2, ["0", "3"])])
def test_the_least_recently_used_give_way(
    architecture: WanArchitecture, loras: list[LoraFile], size: int, read: list[str], *, room: int, again: list[str]
) -> None:
    resident = ResidentLoras(architecture, CPU, host_bytes=room * size)
    for index in (0, 1, 2, 3, 2):
        resident.get(loras[index], strict=True)
    assert read == ["0", "1", "2", "3"]
    listing = resident.listing
    assert [entry.sha256 for entry in listing][-1] == loras[2].sha256
    assert sum(entry.bytes for entry in listing) == min(room, 4) * size
    assert {entry.memory for entry in listing} == {"host"}
    read.clear()
    resident.get(loras[0], strict=True)
    resident.get(loras[3] if room == 2 else loras[2], strict=True)
    assert read == again


def test_one_larger_than_the_budget_is_usable_and_not_kept(
    architecture: WanArchitecture, loras: list[LoraFile], size: int
) -> None:
    resident = ResidentLoras(architecture, CPU, host_bytes=size - 1)
    found = resident.get(loras[0], strict=True)
    assert len(found.tensors) == 40
    assert resident.listing == ()


def test_a_resident_lora_needs_no_file_and_no_particular_path(
    architecture: WanArchitecture, loras: list[LoraFile]
) -> None:
    resident = ResidentLoras(architecture, CPU, host_bytes=2**30)
    found = resident.get(loras[0], strict=True)
    values = {name: value.clone() for name, value in found.tensors.items()}
    Path(loras[0].location).write_bytes(b"something else")  # not a view of the file, either
    moved = loras[0].model_copy(update={"location": "/nowhere", "expert": Expert.LOW})
    again = resident.get(moved, strict=True)
    assert all(torch.equal(again.tensors[name], values[name]) for name in values)
    with pytest.raises(LoraChanged):
        resident.get(moved, strict=False)


@pytest.mark.parametrize("moment", ["read_header", "parse"])
def test_a_file_that_changes_while_it_is_read_is_refused(
    architecture: WanArchitecture, loras: list[LoraFile], monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    original = getattr(safetensors_file if moment == "read_header" else layout, moment)

    def replaced(*args: Any, **options: Any) -> Any:
        Path(loras[0].location).write_bytes(Path(loras[1].location).read_bytes())
        return original(*args, **options)

    target = (
        "deployments.wan.loras.resident.read_header"
        if moment == "read_header"
        else "serve_app.loras.formats.parser.parse"
    )
    monkeypatch.setattr(target, replaced)
    resident = ResidentLoras(architecture, CPU, host_bytes=2**30)
    with pytest.raises(LoraChanged, match="replaced"):
        resident.get(loras[0], strict=True)
    assert resident.listing == ()


@pytest.mark.parametrize("content", [b"", b"not a safetensors file"])
def test_a_file_that_is_no_lora_is_told_apart(architecture: WanArchitecture, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "odd.safetensors"
    path.write_bytes(content)
    with pytest.raises(LoraNotLoaded, match=r"odd\.safetensors"):
        ResidentLoras(architecture, CPU, host_bytes=0).get(lora_file(Expert.LOW, path), strict=True)


def test_a_parser_that_loses_tensors_is_caught(
    architecture: WanArchitecture, loras: list[LoraFile], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    contents = ResidentLoras(architecture, CPU, host_bytes=0).get(loras[0], strict=True).contents
    save_file({"diffusion_model.extra": torch.zeros(1), "other": torch.zeros(2)}, tmp_path / "extra.safetensors")
    monkeypatch.setattr(layout, "parse", lambda *_, **__: contents)
    with pytest.raises(LoraNotLoaded, match="not every tensor") as caught:
        ResidentLoras(architecture, CPU, host_bytes=0).get(
            lora_file(Expert.HIGH, tmp_path / "extra.safetensors"), strict=True
        )
    assert caught.value.details["key_count"] == 42
