"""LoRA state of the experts, judged by frames and by the identity of the loaded tensors."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from deployments.wan.adapters import PairAdapters
from deployments.wan.demo import DemoCheckpoint
from deployments.wan.loading import load_pipeline
from serve_app.errors import LoraChanged, LoraNotLoaded
from serve_app.jobs.spec import Expert, LoraFile, pair_key
from tests.deployments.wan.conftest import Render, difference, load_demo, lora_file, make_spec

Pair = tuple[LoraFile, LoraFile]

_SOME_KEY = "diffusion_model.blocks.0.ffn.2.lora_{}.weight"


def _scaled(lora: LoraFile, multiplier: float) -> LoraFile:
    return lora.model_copy(update={"multiplier": multiplier})


def _lora_tensors(expert: Any) -> list[torch.Tensor]:
    return [weight for name, weight in expert.named_parameters() if "lora_" in name]


@pytest.fixture(scope="module")
def pipe(demo_checkpoint: DemoCheckpoint) -> Any:
    return load_pipeline(str(demo_checkpoint.base), str(demo_checkpoint.transformers), torch.float32, None)


@pytest.fixture
def restored() -> list[None]:
    """Gets an item each time the offload plan is put back."""
    return []


@pytest.fixture
def adapters(pipe: Any, restored: list[None]) -> Iterator[PairAdapters]:
    adapters = PairAdapters(pipe, lambda: restored.append(None))
    yield adapters
    adapters.apply(())


def test_switching_to_another_pair_and_back_gives_the_same_frames(
    render: Render, high: LoraFile, low: LoraFile, other_pair: Pair
) -> None:
    first, other = render(high, low), render(*other_pair)
    assert difference(first, other) > 5
    np.testing.assert_array_equal(render(high, low), first)


def test_a_missing_side_a_zero_multiplier_and_no_pair_equal_the_base(
    demo_checkpoint: DemoCheckpoint, render: Render, high: LoraFile, low: LoraFile
) -> None:
    base = render()
    high_only = render(high)
    assert difference(high_only, base) > 1
    np.testing.assert_array_equal(render(high, _scaled(low, 0)), high_only)
    np.testing.assert_array_equal(render(_scaled(high, 0), _scaled(low, 0)), base)
    # After all that, the base must be what a process that never saw a LoRA computes.
    untouched = load_demo(demo_checkpoint)
    assert untouched.pair_key is None
    np.testing.assert_array_equal(untouched.render(make_spec(), lambda _: None), base)
    np.testing.assert_array_equal(render(), base)


def test_a_multiplier_changes_without_a_reload(
    pipe: Any, adapters: PairAdapters, high: LoraFile, low: LoraFile, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(Path(high.location).read_bytes())
    adapters.apply((lora_file(Expert.HIGH, copy), low))
    before = _lora_tensors(pipe.transformer) + _lora_tensors(pipe.transformer_2)
    copy.unlink()  # a reload would fail
    adapters.apply((_scaled(high, -0.5), _scaled(low, 2)))
    after = _lora_tensors(pipe.transformer) + _lora_tensors(pipe.transformer_2)
    assert before
    assert all(old is new for old, new in zip(before, after, strict=True))
    scales = {expert.blocks[0].ffn.net[2].scaling[name] for expert, name in _experts(pipe)}
    assert scales == {-0.5, 2.0}


def _experts(pipe: Any) -> list[tuple[Any, str]]:
    return [(pipe.transformer, "high_noise"), (pipe.transformer_2, "low_noise")]


def test_one_side_changes_without_a_reload_of_the_other(
    pipe: Any, adapters: PairAdapters, high: LoraFile, low: LoraFile, other_pair: Pair
) -> None:
    adapters.apply((high, low))
    kept, dropped = _lora_tensors(pipe.transformer_2), _lora_tensors(pipe.transformer)
    adapters.apply((other_pair[0], low))
    assert all(old is new for old, new in zip(kept, _lora_tensors(pipe.transformer_2), strict=True))
    assert not any(old is new for old, new in zip(dropped, _lora_tensors(pipe.transformer), strict=True))


def test_the_base_weights_are_never_replaced(pipe: Any, adapters: PairAdapters, high: LoraFile, low: LoraFile) -> None:
    layer = pipe.transformer.blocks[0].attn1.to_q
    content = layer.weight.clone()
    adapters.apply((high, low))
    adapters.apply(())
    assert pipe.transformer.blocks[0].attn1.to_q is layer
    assert torch.equal(layer.weight, content)


def test_the_pair_key_is_of_what_is_loaded(adapters: PairAdapters, high: LoraFile, low: LoraFile) -> None:
    assert adapters.pair_key is None
    adapters.apply((high, low))
    assert adapters.pair_key == pair_key((low, high))
    adapters.apply((low,))
    assert adapters.pair_key == pair_key((low,))
    adapters.apply(())
    assert adapters.pair_key is None


def test_mixed_ranks_and_a_rank_above_the_previous_one_load(
    pipe: Any, adapters: PairAdapters, high: LoraFile, tmp_path: Path
) -> None:
    adapters.apply((high,))
    tensors = load_file(high.location)
    for kind, side in (("A", 0), ("B", 1)):
        key = _SOME_KEY.format(kind)
        tensors[key] = torch.cat([tensors[key]] * 5, side)
    save_file(tensors, tmp_path / "mixed.safetensors")
    adapters.apply((lora_file(Expert.HIGH, tmp_path / "mixed.safetensors"),))
    layer = pipe.transformer.blocks[0].ffn.net[2]
    assert layer.r["high_noise"] == 80
    # Alpha is the layer's own rank, as AI Toolkit trains it.
    assert layer.scaling["high_noise"] == 1.0


def test_a_file_with_alpha_is_scaled_once_however_often_it_is_loaded(
    render: Render, high: LoraFile, tmp_path: Path
) -> None:
    expected = render(_scaled(high, 0.5))
    tensors = load_file(high.location)
    tensors |= {key.replace("lora_A.weight", "alpha"): torch.tensor(8.0) for key in tensors if "lora_A" in key}
    save_file(tensors, tmp_path / "alpha.safetensors")
    with_alpha = lora_file(Expert.HIGH, tmp_path / "alpha.safetensors")
    first = render(with_alpha)
    assert difference(first, expected) < 0.1  # half of rank 16; rounded at another place
    render()
    np.testing.assert_array_equal(render(with_alpha), first)


def _without(key: str) -> Any:
    return lambda tensors: {name: value for name, value in tensors.items() if name != key}


def _renamed(old: str, new: str) -> Any:
    return lambda tensors: {name.replace(old, new): value for name, value in tensors.items()}


def _with(key: str, value: torch.Tensor) -> Any:
    return lambda tensors: {**tensors, key: value}


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (_renamed("diffusion_model.", ""), "blocks.0.cross_attn.k.lora_A.weight"),
        (_renamed("diffusion_model.", "transformer_2."), "transformer_2.blocks.0.cross_attn.k.lora_A.weight"),
        (_renamed("blocks.1.", "blocks.9."), "blocks.9.attn1.to_k.lora_A.weight"),
        (_without(_SOME_KEY.format("B")), _SOME_KEY.format("A")),
        (_with("diffusion_model.blocks.0.norm3.diff_b", torch.zeros(96)), "diffusion_model.blocks.0.norm3.diff_b"),
        (_with(_SOME_KEY.format("A"), torch.zeros(16, 5)), None),
        (lambda _: {"unrelated": torch.zeros(1)}, "unrelated"),
        (lambda _: {}, None),
    ],
    ids=[
        "bare",
        "other model",
        "too many blocks",
        "no up matrix",
        "norm difference",
        "wrong shape",
        "no lora",
        "empty",
    ],
)
def test_weights_that_are_not_taken_are_named_and_leave_the_base(
    render: Render, pair: Pair, tmp_path: Path, change: Any, key: str | None
) -> None:
    high, low = pair
    base, expected = render(), render(*pair)
    save_file(change(load_file(low.location)), tmp_path / "odd.safetensors")
    with pytest.raises(LoraNotLoaded, match=r"odd\.safetensors") as caught:
        render(high, lora_file(Expert.LOW, tmp_path / "odd.safetensors"))
    if key is not None:
        assert any(named.endswith(key) for named in caught.value.details["keys"])
    np.testing.assert_array_equal(render(), base)
    np.testing.assert_array_equal(render(*pair), expected)


def test_a_failed_load_puts_the_offload_plan_back(
    pipe: Any, adapters: PairAdapters, restored: list[None], high: LoraFile, tmp_path: Path
) -> None:
    adapters.apply((high,))
    assert not restored
    (tmp_path / "broken.safetensors").write_bytes(b"not a safetensors file")
    with pytest.raises(LoraNotLoaded):
        adapters.apply((high, lora_file(Expert.LOW, tmp_path / "broken.safetensors")))
    assert len(restored) == 1
    assert adapters.pair_key is None
    assert not _lora_tensors(pipe.transformer)


def test_a_file_that_was_replaced_or_removed_is_refused(
    adapters: PairAdapters, high: LoraFile, low: LoraFile, tmp_path: Path
) -> None:
    path = tmp_path / "mine.safetensors"
    path.write_bytes(Path(high.location).read_bytes())
    pinned = lora_file(Expert.HIGH, path)
    adapters.apply((pinned,))
    adapters.apply(())
    times = path.stat()
    path.write_bytes(Path(low.location).read_bytes())  # of the same size
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(LoraChanged, match="replaced") as caught:
        adapters.apply((pinned,))
    assert caught.value.details["sha256_now"] == low.sha256
    path.unlink()
    with pytest.raises(LoraChanged, match="can no longer be read"):
        adapters.apply((pinned,))


def test_an_accepted_pair_that_is_loaded_survives_the_removal_of_its_file(
    adapters: PairAdapters, high: LoraFile, tmp_path: Path
) -> None:
    path = tmp_path / "mine.safetensors"
    path.write_bytes(Path(high.location).read_bytes())
    pinned = lora_file(Expert.HIGH, path)
    adapters.apply((pinned,))
    path.unlink()
    adapters.apply((_scaled(pinned, 0.5),))
    assert adapters.pair_key == pair_key((pinned,))
