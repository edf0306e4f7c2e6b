from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.errors import LoraInvalid
from serve_app.loras.architecture import WanArchitecture
from serve_app.loras.layout import ADAPTER_METADATA, LoraModule, check_layout
from serve_app.loras.safetensors_file import SafetensorsHeader, TensorInfo, read_header
from tests.serve_app.loras.files import METADATA, TINY, Tensors, full, pair, save

Q = "diffusion_model.blocks.0.self_attn.q"
DOWN_UP = ("lora_down", "lora_up")


def check(folder: Path, tensors: Tensors, metadata: dict[str, str] = METADATA) -> list[LoraModule]:
    path = save(folder / "lora.safetensors", tensors, metadata)
    return check_layout(read_header(path, "mine"), TINY, "mine")


def refusal(folder: Path, tensors: Tensors, metadata: dict[str, str] = METADATA) -> dict[str, Any]:
    with pytest.raises(LoraInvalid) as caught:
        check(folder, tensors, metadata)
    assert caught.value.details["file"] == "mine"
    return caught.value.details


def renamed(tensors: Tensors, old: str, new: str) -> Tensors:
    return {key.replace(old, new): value for key, value in tensors.items()}


def alphas(tensors: Tensors, value: Any) -> Tensors:
    return {key.replace("lora_A.weight", "alpha"): value for key in tensors if "lora_A" in key}


SUBSETS = {
    "all": full(),
    "down and up": full(names=DOWN_UP),
    "alpha of no dimension": full() | alphas(full(), np.array(4, np.float32)),
    "alpha of one dimension": full() | alphas(full(), np.array([4], np.float32)),
    "some alphas": full() | {f"{Q}.alpha": np.array(4, np.float16)},
    "mixed ranks": pair("blocks.0.ffn.0", 1) | pair("blocks.0.ffn.2", 64) | pair("blocks.1.cross_attn.o", 7),
    "not from block 0": pair("blocks.1.self_attn.q"),
    "ffn only": pair("blocks.0.ffn.2"),
    "dtypes": pair("blocks.0.ffn.2") | renamed(full(), "x", "x") | {f"{Q}.lora_A.weight": np.zeros((4, 24))},
}


@pytest.mark.parametrize("name", SUBSETS)
def test_layouts_that_are_applied_completely(tmp_path: Path, name: str) -> None:
    tensors = SUBSETS[name]
    modules = check(tmp_path, tensors)
    halves = {key for module in modules for key in (module.down_key, module.up_key)}
    assert halves == {key for key in tensors if not key.endswith(".alpha")}
    assert {module.alpha_key for module in modules} - {None} == {key for key in tensors if key.endswith(".alpha")}
    assert all(module.rank == tensors[module.down_key].shape[0] for module in modules)


def changed(**replacements: Any) -> Tensors:
    """A good LoRA with tensors of block 0's self_attn.q replaced (`__` is a dot), or removed by None."""
    tensors: Tensors = full()
    for part, value in replacements.items():
        tensors[f"{Q}.{part.replace('__', '.')}"] = value
    return {key: value for key, value in tensors.items() if value is not None}


@pytest.mark.parametrize(
    ("tensors", "key", "why"),
    [
        (changed(lora_B__weight=None), f"{Q}.lora_B.weight", "missing"),
        (changed(lora_A__weight=None), f"{Q}.lora_A.weight", "missing"),
        (changed(lora_A__weight=np.zeros((4, 25))), f"{Q}.lora_A.weight", "expected [r, 24]"),
        (changed(lora_A__weight=np.zeros((4, 24, 1))), f"{Q}.lora_A.weight", "found [4, 24, 1]"),
        (changed(lora_A__weight=np.zeros(())), f"{Q}.lora_A.weight", "found []"),
        (
            changed(lora_A__weight=np.zeros((0, 24)), lora_B__weight=np.zeros((24, 0))),
            f"{Q}.lora_A.weight",
            "at least 1",
        ),
        (changed(lora_B__weight=np.zeros((24, 5))), f"{Q}.lora_B.weight", "expected [24, 4], found [24, 5]"),
        (changed(alpha=np.zeros(2)), f"{Q}.alpha", "expected [] or [1], found [2]"),
        (changed(lora_A__weight=np.zeros((4, 24), np.int8)), f"{Q}.lora_A.weight", "dtype I8"),
        (changed(lora_A__bias=np.zeros(4)), f"{Q}.lora_A.bias", "no place"),
        (
            full() | {"diffusion_model.blocks.2.ffn.0.alpha": np.zeros(1)},
            "diffusion_model.blocks.2.ffn.0.alpha",
            "no place",
        ),
        (
            full() | {"diffusion_model.blocks.00.ffn.0.alpha": np.zeros(1)},
            "diffusion_model.blocks.00.ffn.0.alpha",
            "0 to 1",
        ),
        (full() | {f"x{Q}.alpha": np.zeros(1)}, f"x{Q}.alpha", "no place"),
        (full() | {f"{Q}.alpha\n": np.zeros(1)}, f"{Q}.alpha\n", "no place"),
        (
            full() | {"diffusion_model.head.head.lora_A.weight": np.zeros((4, 24))},
            "diffusion_model.head.head.lora_A.weight",
            "no place",
        ),
        (changed(lora_A__weight=None, lora_down__weight=np.zeros((4, 24))), f"{Q}.lora_down.weight", "mixes"),
        (pair("blocks.0.ffn.0", names=("lora_A", "lora_up")), "diffusion_model.blocks.0.ffn.0.lora_up.weight", "mixes"),
    ],
)
def test_a_tensor_that_would_not_be_applied_is_named(tmp_path: Path, tensors: Tensors, key: str, why: str) -> None:
    details = refusal(tmp_path, tensors)
    assert why in details["reason"]
    assert details["keys"] == [key]
    assert details["count"] == 1


@pytest.mark.parametrize(
    ("key", "looks_like"),
    [
        ("lora_unet_blocks_0_self_attn_q.lora_down.weight", "kohya and musubi"),
        ("transformer.blocks.0.attn1.to_q.lora_A.weight", "diffusers"),
        ("transformer_2.blocks.0.attn1.to_q.lora_A.weight", "diffusers"),
        ("base_model.model.blocks.0.self_attn.q.lora_A.weight", "PEFT"),
        (f"{Q}.lora_A.default.weight", "adapter names"),
        ("blocks.0.self_attn.q.lora_A.weight", "without the diffusion_model. prefix"),
        (f"{Q}.lokr_w1", "LoKr"),
        (f"{Q}.hada_w1_a", "LoHa"),
        (f"{Q}.dora_scale", "DoRA"),
        (f"{Q}.lora_magnitude_vector", "DoRA"),
        (f"{Q}.diff", ".diff"),
        (f"{Q}.diff_b", ".diff"),
        ("diffusion_model.blocks.0.norm3.diff", ".diff"),
        ("diffusion_model.transformer_1.blocks.0.self_attn.q.lora_A.weight", "combined file"),
        ("diffusion_model.transformer_2.blocks.0.self_attn.q.lora_A.weight", "combined file"),
        ("diffusion_model.blocks.0.cross_attn.k_img.lora_A.weight", "Wan I2V"),
        ("diffusion_model.img_emb.proj.1.lora_A.weight", "Wan I2V"),
        ("diffusion_model.double_blocks.0.img_attn.qkv.lora_A.weight", "FLUX"),
        ("transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight", "FLUX"),
        ("lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight", "FLUX"),
        ("lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight", "Stable Diffusion"),
        ("transformer.transformer_blocks.0.attn.to_q.lora_A.weight", "Qwen-Image"),
    ],
)
def test_other_layouts_and_models_are_recognised_among_good_tensors(tmp_path: Path, key: str, looks_like: str) -> None:
    details = refusal(tmp_path, full() | {key: np.zeros((4, 24), np.float16)})
    assert "this looks like" in details["reason"]
    assert looks_like in details["reason"]
    assert details["keys"] == [key]


@pytest.mark.parametrize(
    ("width", "model"), [(1536, "Wan 2.1 1.3B"), (3072, "Wan 2.2 TI2V 5B"), (5120, "Wan 2.1 or 2.2 14B")]
)
def test_a_lora_of_another_member_of_the_family_is_named(tmp_path: Path, width: int, model: str) -> None:
    tensors = {
        "diffusion_model.blocks.29.self_attn.q.lora_A.weight": np.zeros((1, width), np.float16),
        "diffusion_model.blocks.29.self_attn.q.lora_B.weight": np.zeros((width, 1), np.float16),
    }
    reason = refusal(tmp_path, tensors)["reason"]
    assert f"LoRA for {model}" in reason
    assert "width 24" in reason


def test_the_full_size_layout_is_accepted() -> None:
    model = WanArchitecture(40, 5120, 13824)
    tensors = {}
    for module, (out, wide) in model.linear_shapes().items():
        tensors[f"diffusion_model.{module}.lora_A.weight"] = TensorInfo("BF16", (32, wide), 0, 0)
        tensors[f"diffusion_model.{module}.lora_B.weight"] = TensorInfo("BF16", (out, 32), 0, 0)
    assert len(check_layout(SafetensorsHeader(tensors, {}, 8, 8), model, "x")) == 400


def test_a_file_without_tensors_is_refused(tmp_path: Path) -> None:
    assert "no tensors" in refusal(tmp_path, {})["reason"]


def test_metadata_that_would_override_the_scale_is_refused(tmp_path: Path) -> None:
    assert ADAPTER_METADATA in refusal(tmp_path, full(), {ADAPTER_METADATA: '{"transformer.r": 4}'})["reason"]


def test_ten_keys_are_named_and_all_are_counted(tmp_path: Path) -> None:
    details = refusal(tmp_path, full() | renamed(full(), "diffusion_model.", "other."))
    assert len(details["keys"]) == 10
    assert details["count"] == len(full())
    assert all(key.startswith("other.") for key in details["keys"])


@given(st.sets(st.sampled_from(sorted(full())), min_size=1), st.sampled_from(sorted(full())))
def test_any_subset_is_accepted_exactly_when_no_half_is_alone(keys: set[str], extra: str) -> None:
    chosen = keys | {extra}
    tensors = {key: TensorInfo("F16", full()[key].shape, 0, 0) for key in chosen}
    other = {"A": "B", "B": "A"}
    whole = all(key[:-8] + other[key[-8]] + key[-7:] in chosen for key in chosen)
    try:
        check_layout(SafetensorsHeader(tensors, {}, 8, 8), TINY, "x")
    except LoraInvalid as error:
        assert not whole
        assert not set(error.details["keys"]) & chosen  # names what is missing
    else:
        assert whole
