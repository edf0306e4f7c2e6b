"""Where untouched weights are kept, and how much memory there is for them."""

import json
from pathlib import Path

import pytest
import torch

from deployments.wan import host_memory
from deployments.wan.host_memory import HostCopies, available_bytes
from deployments.wan.loading import expert_files
from deployments.wan.loras.pristine import Pristine, choose_mode
from serve_app.errors import ConfigurationInvalid
from serve_app.settings import PristineMode
from serve_app.spec import Expert, Recipe
from tests.deployments.wan.conftest import lora_file, make_spec
from tests.deployments.wan.experts import Experts, same, save_experts

_GIB = 2**30


def _choose(mode: PristineMode, gpu: int, host: int, device: str = "cuda") -> PristineMode:
    return choose_mode(mode, device_type=device, needed_bytes=54 * _GIB, gpu_bytes=gpu * _GIB, host_bytes=host * _GIB)


@pytest.mark.parametrize(
    ("gpu", "host", "device", "chosen"),
    [
        (54, 0, "cuda", PristineMode.GPU),
        (53, 68, "cuda", PristineMode.HOST),
        (53, 67, "cuda", PristineMode.CHECKPOINT),
        (54, 68, "cpu", PristineMode.HOST),
        (54, 67, "cpu", PristineMode.CHECKPOINT),
    ],
)
def test_auto_picks_the_fastest_place_with_room(gpu: int, host: int, device: str, chosen: PristineMode) -> None:
    assert _choose(PristineMode.AUTO, gpu, host, device) is chosen


@pytest.mark.parametrize("mode", [PristineMode.GPU, PristineMode.HOST, PristineMode.CHECKPOINT])
def test_the_operator_is_obeyed(mode: PristineMode) -> None:
    assert _choose(mode, 0, 0) is mode


def test_a_cpu_has_no_gpu_memory() -> None:
    with pytest.raises(ConfigurationInvalid, match="pristine: gpu needs a GPU"):
        _choose(PristineMode.GPU, 99, 99, "cpu")


def test_an_expert_in_several_files_is_read_again_from_all_of_them(
    tmp_path: Path, layouts: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    save_experts(tmp_path, max_shard_size="50KB")
    files = expert_files(str(tmp_path), "transformer")
    assert len(set(files.values())) > 1
    experts = Experts(tmp_path, torch.bfloat16, pristine=PristineMode.CHECKPOINT)
    assert files.keys() == experts.expert(Expert.HIGH).state_dict().keys()
    spec = make_spec(lora_file(Expert.HIGH, layouts["full-rank"]), recipe=Recipe.PREVIEW)
    experts.apply(spec)
    assert not same(experts.weights(Expert.HIGH), experts.loaded[Expert.HIGH])
    experts.clear(spec)
    assert same(experts.weights(Expert.HIGH), experts.loaded[Expert.HIGH])


def test_a_checkpoint_replaced_on_disk_is_not_mixed_in(tmp_path: Path, layouts: dict[str, Path]) -> None:
    save_experts(tmp_path)
    experts = Experts(tmp_path, pristine=PristineMode.CHECKPOINT)
    spec = make_spec(lora_file(Expert.HIGH, layouts["full-rank"]), recipe=Recipe.PREVIEW)
    experts.apply(spec)
    other = tmp_path / "transformer_2" / "diffusion_pytorch_model.safetensors"
    other.replace(tmp_path / "transformer" / other.name)
    experts.clear(spec)
    assert same(experts.weights(Expert.HIGH), experts.loaded[Expert.HIGH])


def test_files_of_a_hub_repository_are_found_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = tmp_path / "models--some--experts" / "snapshots" / "abc"
    (snapshot / "transformer").mkdir(parents=True)
    (tmp_path / "models--some--experts" / "refs").mkdir()
    (tmp_path / "models--some--experts" / "refs" / "main").write_text("abc")
    index = snapshot / "transformer" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"proj_out.bias": "part-1.safetensors"}}))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert expert_files("some/experts", "transformer") == {"proj_out.bias": index.parent / "part-1.safetensors"}
    with pytest.raises(ConfigurationInvalid, match="no safetensors files for transformer_2"):
        expert_files("some/experts", "transformer_2")


def test_files_that_cannot_be_opened_are_a_configuration_error(tmp_path: Path) -> None:
    missing = {"proj_out.bias": tmp_path / "missing.safetensors"}
    with pytest.raises(ConfigurationInvalid, match="cannot read the experts' files"):
        Pristine(PristineMode.CHECKPOINT, torch.device("cpu"), lambda: missing)


def _cgroup(folder: Path, limit: str) -> None:
    (folder / "memory.max").write_text(limit)
    (folder / "memory.current").write_text("700")
    (folder / "memory.stat").write_text("anon 100\ninactive_file 500\nactive_file 100\n")


@pytest.mark.parametrize(("limit", "available"), [("max\n", 10240), ("1000\n", 800), ("100\n", 0)])
def test_available_memory_counts_the_page_cache_and_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, available: int
) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:  99 kB\nMemAvailable:   10 kB\nHugePages_Total:   0\n")
    monkeypatch.setattr(host_memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(host_memory, "_CGROUP", tmp_path)
    _cgroup(tmp_path, limit)
    assert available_bytes() == available


def test_without_linux_all_memory_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_memory, "_MEMINFO", tmp_path / "missing")
    assert available_bytes() > _GIB


def test_copies_are_cut_from_page_locked_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    empty, blocks = torch.empty, []

    def unpinned(size: int, *, dtype: torch.dtype, pin_memory: bool) -> torch.Tensor:
        assert pin_memory
        blocks.append(size)
        return empty(size, dtype=dtype)

    monkeypatch.setattr(torch, "empty", unpinned)
    copies = HostCopies(pinned=True, block_bytes=4096)
    tensors = [torch.randn(3, 7).bfloat16(), torch.randn(1000), torch.randn(2000).double(), torch.tensor(3.0)]
    made = [copies.copy(tensor) for tensor in tensors]
    for tensor, copy in zip(tensors, made, strict=True):
        assert copy.dtype is tensor.dtype
        assert torch.equal(copy, tensor)
        assert copy.data_ptr() != tensor.data_ptr()
    assert blocks == [4096, 4096, 16384]


def test_where_no_page_can_be_locked_copies_are_ordinary(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> torch.Tensor:
        raise RuntimeError("cudaHostAlloc failed")

    monkeypatch.setattr(torch, "empty", refused)
    tensor = torch.ones(3)
    assert torch.equal(HostCopies(pinned=True, block_bytes=4096).copy(tensor), tensor)
