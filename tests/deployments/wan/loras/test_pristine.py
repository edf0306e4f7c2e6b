"""Where untouched weights are kept, and that they come back bit for bit."""

import json
from pathlib import Path

import pytest
import torch

from deployments.wan.loading import expert_files
from deployments.wan.loras.pristine import Pristine
from serve_app.errors import ConfigurationInvalid
from serve_app.settings import PristineMode
from serve_app.spec import Expert, Recipe
from tests.deployments.wan.conftest import lora_file, make_spec
from tests.deployments.wan.experts import Experts, same, save_experts


def test_an_expert_in_several_files_is_read_again_from_all_of_them(
    tmp_path: Path, layouts: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    save_experts(tmp_path, max_shard_size="50KB")
    files = expert_files(str(tmp_path), Expert.HIGH)
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
    assert expert_files("some/experts", Expert.HIGH) == {"proj_out.bias": index.parent / "part-1.safetensors"}
    with pytest.raises(ConfigurationInvalid, match="no safetensors files for transformer_2"):
        expert_files("some/experts", Expert.LOW)


def test_files_that_cannot_be_opened_are_a_configuration_error(tmp_path: Path) -> None:
    missing = {"proj_out.bias": tmp_path / "missing.safetensors"}
    with pytest.raises(ConfigurationInvalid, match="cannot read the experts' files"):
        Pristine(PristineMode.CHECKPOINT, torch.device("cpu"), lambda: missing)
