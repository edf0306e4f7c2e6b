"""Which LoRA files a switch reads, which tensors it reuses, and which files it refuses."""

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from serve_app.errors import LoraChanged, LoraNotLoaded
from serve_app.spec import PAIR, Expert, Recipe, RenderSpec, pair_key
from tests.deployments.wan.conftest import lora_file, make_spec
from tests.deployments.wan.experts import Experts, same_state, scaled
from tests.loras.layouts import write


@pytest.mark.parametrize("name", ["ai-toolkit", "lokr"])
def test_a_multiplier_changes_without_its_file(experts: Experts, layouts: dict[str, Path], name: str) -> None:
    path = layouts[name].with_name("mine.safetensors")
    path.write_bytes(layouts[name].read_bytes())
    mine = lora_file(Expert.HIGH, path)
    experts.apply(make_spec(mine))
    before = _adapter_tensors(experts.pipe.transformer)
    path.unlink()
    experts.apply(make_spec(scaled(mine, -0.5)))
    assert all(old is new for old, new in zip(before, _adapter_tensors(experts.pipe.transformer), strict=True))
    assert experts.state.applied[0].network_multiplier == -0.5
    fresh = Experts(layouts_root(experts))
    fresh.apply(make_spec(lora_file(Expert.HIGH, layouts[name], -0.5)))
    assert same_state(experts, fresh)


def layouts_root(experts: Experts) -> Path:
    return Path(experts.pipe.transformer.config._name_or_path)


def _adapter_tensors(expert: Any) -> list[torch.Tensor]:
    return [weight for name, weight in expert.named_parameters() if "lora_" in name]


def test_only_what_must_be_read_is_lacking(tiny_experts: Path, layouts: dict[str, Path]) -> None:
    experts = Experts(tiny_experts, lora_memory_bytes=0)  # what acts is not resident
    high, low = (lora_file(side, layouts["ai-toolkit"]) for side in PAIR)
    merged = lora_file(Expert.LOW, layouts["lokr"])
    assert experts.state.lacking(make_spec(high, low)) == (low,)  # one content
    experts.apply(make_spec(high, low))
    assert experts.state.lacking(make_spec(high, low)) == ()
    assert experts.state.lacking(make_spec(scaled(high, 0.5), low)) == ()
    assert experts.state.lacking(make_spec(high)) == ()
    assert experts.state.lacking(make_spec(high, merged)) == (merged,)
    assert experts.state.lacking(make_spec(high, low, recipe=Recipe.PREVIEW)) == (low,)
    assert experts.state.lacking(make_spec(high, low, strict=False)) == (low,)
    experts.apply(make_spec(high, merged))
    assert experts.state.lacking(make_spec(high, scaled(merged, 0.5))) == (scaled(merged, 0.5),)
    kept = Experts(tiny_experts)
    kept.apply(make_spec(high, merged))
    kept.clear(make_spec())
    assert kept.state.lacking(make_spec(high, low, merged, recipe=Recipe.PREVIEW)) == ()


def test_one_side_changes_without_a_reload_of_the_other(experts: Experts, layouts: dict[str, Path]) -> None:
    high, low = (lora_file(side, layouts["ai-toolkit"]) for side in PAIR)
    experts.apply(make_spec(high, low))
    kept, dropped = _storage(experts.pipe.transformer_2), _storage(experts.pipe.transformer)
    experts.apply(make_spec(lora_file(Expert.HIGH, layouts["peft"]), low))
    assert _storage(experts.pipe.transformer_2) == kept
    assert dropped.isdisjoint(_storage(experts.pipe.transformer))


def _storage(expert: Any) -> set[int]:
    return {tensor.data_ptr() for tensor in _adapter_tensors(expert)}


SAME_FORM = ("ai-toolkit", "ai-toolkit-alpha", "kohya-alpha", "diffusers-down-up", "peft", "bare")


def test_loras_of_the_same_layers_and_ranks_take_turns_in_the_same_adapter(
    tiny_experts: Path, layouts: dict[str, Path]
) -> None:
    experts = Experts(tiny_experts)
    experts.apply(_both(layouts[SAME_FORM[0]], 1.0))
    wrapped = _wrapped(experts)
    for name in (*SAME_FORM, *reversed(SAME_FORM)):
        experts.apply(_both(layouts[name], 0.75))
        fresh = Experts(tiny_experts)
        fresh.apply(_both(layouts[name], 0.75))
        assert same_state(experts, fresh), name
    assert all(old is new for old, new in zip(wrapped, _wrapped(experts), strict=True))


def _wrapped(experts: Experts) -> list[Any]:
    return [layer for side in PAIR for layer in experts.expert(side).modules() if hasattr(layer, "lora_A")]


def _both(path: Path, multiplier: float) -> RenderSpec:
    return make_spec(*(lora_file(side, path, multiplier) for side in PAIR))


def test_the_pair_key_is_of_what_is_loaded(experts: Experts, layouts: dict[str, Path]) -> None:
    high, low = (lora_file(side, layouts["ai-toolkit"]) for side in PAIR)
    assert experts.state.pair_key is None
    experts.apply(make_spec(high, low))
    assert experts.state.pair_key == pair_key((low, high))
    experts.apply(make_spec(low))
    assert experts.state.pair_key == pair_key((low,))
    experts.clear(make_spec())
    assert experts.state.pair_key is None


def test_a_render_error_leaves_the_loaded_pair(experts: Experts, layouts: dict[str, Path]) -> None:
    high, low = (lora_file(side, layouts["ai-toolkit"]) for side in PAIR)
    experts.apply(make_spec(high, low))
    key, applied = experts.state.pair_key, experts.state.applied
    with pytest.raises(LoraChanged):
        experts.apply(make_spec(high.model_copy(update={"content": "0" * 64, "sha256": "0" * 64}), low))
    assert (experts.state.pair_key, experts.state.applied) == (key, applied)


def test_a_file_that_was_replaced_or_removed_is_refused(
    tiny_experts: Path, layouts: dict[str, Path], tmp_path: Path
) -> None:
    experts = Experts(tiny_experts, lora_memory_bytes=0)
    path = tmp_path / "mine.safetensors"
    path.write_bytes(layouts["ai-toolkit"].read_bytes())
    pinned = lora_file(Expert.HIGH, path)
    experts.apply(make_spec(pinned))
    experts.clear(make_spec())
    times = path.stat()
    path.write_bytes(layouts["bare"].read_bytes().ljust(times.st_size))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(LoraChanged, match="replaced") as caught:
        experts.apply(make_spec(pinned))
    assert caught.value.details["sha256_now"] == hashlib.sha256(path.read_bytes()).hexdigest()
    path.unlink()
    with pytest.raises(LoraChanged, match="can no longer be read"):
        experts.apply(make_spec(pinned))


def test_what_has_no_place_is_left_out_only_where_the_request_allows_it(
    experts: Experts, layouts: dict[str, Path], tmp_path: Path
) -> None:
    odd = tmp_path / "odd.safetensors"
    save_file({**load_file(layouts["ai-toolkit"]), "diffusion_model.img_emb.bias": torch.zeros(1)}, odd)
    lora = lora_file(Expert.LOW, odd)
    with pytest.raises(LoraNotLoaded, match="img_emb"):
        experts.apply(make_spec(lora))
    experts.apply(make_spec(lora, strict=False))
    (applied,) = experts.state.applied
    assert applied.left_out == ("diffusion_model.img_emb.bias",)
    assert applied.application == "adapter"


def test_a_combined_file_without_that_side_is_refused(experts: Experts, tmp_path: Path) -> None:
    written = write("ai-toolkit", tmp_path)
    tensors = {
        key.replace("diffusion_model.", "diffusion_model.transformer_1."): value
        for key, value in load_file(written.path).items()
    }
    save_file(tensors, tmp_path / "high.safetensors")
    experts.apply(make_spec(lora_file(Expert.HIGH, tmp_path / "high.safetensors")))
    with pytest.raises(LoraNotLoaded, match="holds nothing for the low noise expert"):
        experts.apply(make_spec(lora_file(Expert.LOW, tmp_path / "high.safetensors")))
