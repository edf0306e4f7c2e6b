"""Which LoRAs stay in memory, and what is read."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import save_file

from deployments.wan.loras.resident import LoadedLora, ResidentLoras
from serve_app.errors import LoraChanged, LoraNotLoaded
from serve_app.loras.files import LoraOnDisk
from serve_app.loras.formats import read_header
from serve_app.spec import Expert, LoraFile
from tests.deployments.wan.conftest import lora_file
from tests.deployments.wan.held import held
from tests.loras.layouts import write

CPU = torch.device("cpu")


@pytest.fixture
def config(tiny_experts: Path) -> dict[str, Any]:
    found: dict[str, Any] = WanTransformer3DModel.load_config(tiny_experts, subfolder="transformer")
    return found


@pytest.fixture
def loras(tmp_path: Path) -> list[LoraFile]:
    """Return files of one size."""
    folders = [tmp_path / str(number) for number in range(4)]
    for folder in folders:
        folder.mkdir()
    return [lora_file(Expert.HIGH, write("ai-toolkit", folder, seed=seed).path) for seed, folder in enumerate(folders)]


class Store:
    """Resident LoRAs, and the files that they lack."""

    def __init__(self, config: dict[str, Any], host_bytes: int) -> None:
        self.resident = ResidentLoras(CPU, host_bytes=host_bytes)
        self.read: list[str] = []  # folder of each file that was needed
        self._config = config

    def get(self, *loras: LoraFile, strict: bool = True) -> tuple[LoadedLora, ...]:
        with self.files(*loras, strict=strict) as files:
            return self.resident.get(loras, files, strict=strict)

    @contextmanager
    def files(self, *loras: LoraFile, strict: bool = True) -> Iterator[dict[str, LoraOnDisk]]:
        lacking = self.resident.lacking(loras, strict=strict)
        self.read += [Path(lora.location).parent.name for lora in lacking]
        with held(lacking, self._config, strict=strict) as files:
            yield files


@pytest.fixture
def size(config: dict[str, Any], loras: list[LoraFile]) -> int:
    (found,) = Store(config, 2**30).get(loras[0])
    return found.size


@pytest.mark.parametrize(("room", "again"), [(4, []), (3, ["0"]), (2, ["0", "3"])])
def test_the_least_recently_used_give_way(
    config: dict[str, Any], loras: list[LoraFile], size: int, *, room: int, again: list[str]
) -> None:
    store = Store(config, room * size)
    for index in (0, 1, 2, 3, 2):
        store.get(loras[index])
    assert store.read == ["0", "1", "2", "3"]
    listing = store.resident.listing
    assert [entry.sha256 for entry in listing][-1] == loras[2].sha256
    assert sum(entry.bytes for entry in listing) == min(room, 4) * size
    assert {entry.memory for entry in listing} == {"host"}
    assert store.resident.content_ids == {loras[index].content for index in range(4)[-room:]}
    store.read.clear()
    store.get(loras[0])
    store.get(loras[3] if room == 2 else loras[2])
    assert store.read == again


def test_where_room_is_short_those_whose_files_are_at_hand_go_first(
    config: dict[str, Any], loras: list[LoraFile], size: int
) -> None:
    store = Store(config, 2 * size)
    store.get(loras[0], loras[1])
    for order in ((0, 2, 3), (2, 0, 3), (2, 3, 0)):
        wanted = [loras[index] for index in order]
        found = store.get(*wanted)
        assert [lora.key.content for lora in found] == [lora.content for lora in wanted]
        assert loras[0] not in store.resident.lacking(wanted, strict=True)


def test_a_content_that_is_wanted_twice_is_read_once(config: dict[str, Any], loras: list[LoraFile]) -> None:
    store = Store(config, 2**30)
    low = loras[0].model_copy(update={"expert": Expert.LOW})
    assert store.resident.lacking([loras[0], low], strict=True) == (low,)
    one, other = store.get(loras[0], low)
    assert one is other


def test_one_larger_than_the_budget_is_usable_and_not_kept(
    config: dict[str, Any], loras: list[LoraFile], size: int
) -> None:
    store = Store(config, size - 1)
    (found,) = store.get(loras[0])
    assert len(found.tensors) == 40
    assert store.resident.listing == ()
    assert store.resident.lacking(loras[:1], strict=True) == (loras[0],)


def test_a_resident_lora_needs_no_file_and_no_particular_path(config: dict[str, Any], loras: list[LoraFile]) -> None:
    store = Store(config, 2**30)
    (found,) = store.get(loras[0])
    values = {name: value.clone() for name, value in found.tensors.items()}
    Path(loras[0].location).write_bytes(b"something else")  # not a view of the file, either
    moved = loras[0].model_copy(update={"location": "/nowhere", "expert": Expert.LOW})
    (again,) = store.resident.get([moved], {}, strict=True)
    assert all(torch.equal(again.tensors[name], values[name]) for name in values)
    assert store.resident.lacking([moved], strict=False) == (moved,)


@pytest.mark.parametrize("content", ["other bytes of the same size", "shorter", "gone"])
def test_a_file_that_changed_since_it_was_checked_is_refused(
    config: dict[str, Any], loras: list[LoraFile], content: str
) -> None:
    store, path = Store(config, 2**30), Path(loras[0].location)
    with store.files(loras[0]) as files:
        match content:
            case "gone":
                path.unlink()
            case "shorter":
                path.write_bytes(path.read_bytes()[:-8])
            case _:
                path.write_bytes(Path(loras[1].location).read_bytes())
        with pytest.raises(LoraChanged):
            store.resident.get([loras[0]], files, strict=True)
    assert store.resident.listing == ()


@pytest.mark.parametrize("content", [b"", b"not a safetensors file"])
def test_a_file_that_is_no_lora_is_distinguished(config: dict[str, Any], tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "odd.safetensors"
    path.write_bytes(content)
    with pytest.raises(LoraNotLoaded, match=r"odd\.safetensors"):
        Store(config, 0).get(lora_file(Expert.LOW, path))


def test_a_parser_that_loses_tensors_is_caught(config: dict[str, Any], loras: list[LoraFile], tmp_path: Path) -> None:
    store = Store(config, 0)
    save_file({"diffusion_model.extra": torch.zeros(1), "other": torch.zeros(2)}, tmp_path / "extra.safetensors")
    with store.files(loras[0]) as files:
        whole = files[loras[0].content]
        header = read_header(tmp_path / "extra.safetensors", "extra.safetensors")
        files[loras[0].content] = replace(whole, header=header)
        with pytest.raises(LoraNotLoaded, match="not every tensor") as caught:
            store.resident.get([loras[0]], files, strict=True)
    assert caught.value.details["key_count"] == 42
