"""Headers only: which files are refused, or only read leniently, and what the client is told to do."""

from collections import Counter
from dataclasses import replace

import pytest

from serve_app.errors import LoraInvalid
from serve_app.loras.formats.parser import parse
from tests.serve_app.loras.files import TINY
from tests.serve_app.loras.headers import (
    HIGH,
    LOKR,
    LOW,
    PAIR,
    PATCH,
    PATCH_PAIR,
    PIPELINE_HIGH,
    STEM,
    Shapes,
    accept,
    header,
    refusal,
    used_keys,
    without,
)


@pytest.mark.parametrize("shapes", [HIGH | LOW | PAIR, HIGH | PIPELINE_HIGH])
def test_tensors_that_do_not_say_their_expert_in_a_combined_file_are_refused(shapes: Shapes) -> None:
    details = refusal(shapes)
    assert "which expert" in details["reason"]
    assert not set(details["keys"]) & set(HIGH | LOW)


DAMAGED: list[tuple[str, Shapes, str, str]] = [
    ("no up half", without(PAIR, "lora_B.weight"), f"{STEM}.lora_B.weight", "missing"),
    ("no down half", without(PAIR, "lora_A.weight"), f"{STEM}.lora_A.weight", "missing"),
    (
        "no half of an adapter's",
        {f"{STEM}.lora_B.default.weight": (24, 4)},
        f"{STEM}.lora_A.default.weight",
        "missing",
    ),
    ("no half of diffusers' old names", {f"{STEM}.lora.up.weight": (24, 4)}, f"{STEM}.lora.down.weight", "missing"),
    ("alpha alone", {f"{STEM}.alpha": ()}, f"{STEM}.lora_A.weight", "missing"),
    ("alpha beside a difference", {f"{STEM}.alpha": (), f"{STEM}.diff": (24, 24)}, f"{STEM}.lora_A.weight", "missing"),
    ("magnitude alone", {f"{STEM}.dora_scale": (24, 1)}, f"{STEM}.lora_B.weight", "missing"),
    ("one factor", without(LOKR, "lokr_w1"), f"{STEM}.lokr_w1", "missing"),
    ("half a factor", without(LOKR, "w2_b"), f"{STEM}.lokr_w2_b", "missing"),
    ("no second factor", {f"{STEM}.lokr_w1": (4, 3)}, f"{STEM}.lokr_w2", "missing"),
    ("factor twice", LOKR | {f"{STEM}.lokr_w2": (6, 8)}, f"{STEM}.lokr_w2", "both whole and as a product"),
    ("LoRA and LoKr", LOKR | PAIR, f"{STEM}.lora_A.weight", "merge one of them"),
    ("DoRA of a LoKr", LOKR | {f"{STEM}.dora_scale": (24, 1)}, f"{STEM}.dora_scale", "dora_wd: false"),
    ("DoRA and difference", PAIR | {f"{STEM}.magnitude": (24,), f"{STEM}.diff": (24, 24)}, f"{STEM}.diff", "order"),
    ("DoRA of a convolution", PATCH_PAIR | {f"{PATCH}.magnitude": (24,)}, f"{PATCH}.magnitude", "of a convolution"),
    ("LoKr of a convolution", {f"{PATCH}.lokr_w1": (1, 1), f"{PATCH}.lokr_w2": (1, 1)}, f"{PATCH}.lokr_w1", "linear"),
    ("Tucker", PAIR | {f"{STEM}.lora_mid.weight": (4, 4)}, f"{STEM}.lora_mid.weight", "Tucker"),
    ("Tucker LoKr", LOKR | {f"{STEM}.lokr_t2": (4, 4)}, f"{STEM}.lokr_t2", "Tucker"),
    ("LoHa", {f"{STEM}.hada_w1_a": (4, 4)}, f"{STEM}.hada_w1_a", "LoHa"),
    ("OFT", {f"{STEM}.oft_blocks": (4, 4, 4)}, f"{STEM}.oft_blocks", "OFT"),
    ("GLoRA", {f"{STEM}.a1.weight": (4, 4)}, f"{STEM}.a1.weight", "GLoRA"),
    ("IA3", {f"{STEM}.ia3_l": (24, 1)}, f"{STEM}.ia3_l", "IA3"),
    ("VeRA", {f"{STEM}.vera_lambda_b": (24,)}, f"{STEM}.vera_lambda_b", "VeRA"),
    ("AdaLoRA", PAIR | {f"{STEM}.lora_E": (4, 1)}, f"{STEM}.lora_E", "AdaLoRA"),
    ("LoRA-XS", PAIR | {f"{STEM}.lora_R.weight": (4, 4)}, f"{STEM}.lora_R.weight", "a kind that is not read"),
    ("fp8", PAIR | {f"{STEM}.scale_weight": ()}, f"{STEM}.scale_weight", "quantised checkpoint"),
    ("LoRA bias", PAIR | {f"{STEM}.lora_B.bias": (24,)}, f"{STEM}.lora_B.bias", "lora_bias"),
    ("LoRA bias of an adapter", PAIR | {f"{STEM}.lora_B.x.bias": (24,)}, f"{STEM}.lora_B.x.bias", "lora_bias"),
    ("set weight", PAIR | {f"{STEM}.set_weight": (24, 24)}, f"{STEM}.set_weight", "replace or resize"),
    ("reshape weight", PAIR | {f"{STEM}.reshape_weight": (2,)}, f"{STEM}.reshape_weight", "replace or resize"),
    ("whole weight", PAIR | {f"{STEM}.weight": (24, 24)}, f"{STEM}.weight", "whole weights"),
    (
        "two conventions for one half",
        PAIR | {f"{STEM}.lora_down.weight": (4, 24)},
        f"{STEM}.lora_down.weight",
        "same part of the same layer",
    ),
    (
        "two namings of one layer",
        PAIR | {"transformer.blocks.0.attn1.to_q.lora_B.weight": (24, 4)},
        "transformer.blocks.0.attn1.to_q.lora_B.weight",
        "keep one naming",
    ),
    (
        "norm2 beside norm3",
        {"blocks.0.norm2.diff": (24,), "blocks.0.norm3.diff": (24,)},
        "blocks.0.norm3.diff",
        "same part",
    ),
    ("two adapters", PAIR | {f"{STEM}.lora_A.b.weight": (4, 24)}, f"{STEM}.lora_A.b.weight", "same part"),
]


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(("shapes", "key", "why"), [case[1:] for case in DAMAGED], ids=[case[0] for case in DAMAGED])
def test_damage_and_what_cannot_be_applied_is_refused_even_leniently(
    shapes: Shapes, key: str, why: str, strict: bool
) -> None:
    details = refusal({"diffusion_model.blocks.1.ffn.0.diff_b": (48,)} | shapes, strict=strict)
    assert why in details["reason"]
    assert key in details["keys"]
    assert details["count"] == len(details["keys"])


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "I8", "BOOL"])
@pytest.mark.parametrize("strict", [True, False])
def test_quantised_tensors_are_refused_with_what_to_export(dtype: str, strict: bool) -> None:
    key = f"{STEM}.lora_A.weight"
    with pytest.raises(LoraInvalid, match=rf"dtype {dtype}; export it as F16, BF16, F32") as caught:
        parse(header(PAIR, None, **{key: dtype}), TINY, "mine", strict=strict)
    assert caught.value.details["keys"] == [key]


UNKNOWN = [
    "diffusion_model.blocks.2.ffn.0.alpha",  # the model ends at 1
    "diffusion_model.blocks.00.ffn.0.alpha",
    f"x{STEM}.alpha",
    f"{STEM}.alpha\n",
    f"{STEM}.lora_C.weight",
    "blocks.0.norm1.diff",  # has no parameters
    "blocks.0.self_attn.norm_q.diff_b",  # has no bias
    "blocks.0.norm3.lora_A.weight",  # is no matrix
    "blocks.0.modulation.lora_A.weight",
    "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight",
    "lora_te_x.hada_w1_a",
    "text_encoder.layers.0.lora_A.weight",
    "lora_unet_blocks_0_self_attn_q_.alpha",
    ".alpha",
    "alpha",
    "",
]


@pytest.mark.parametrize("key", UNKNOWN)
def test_a_tensor_without_a_place_is_refused_or_left_out_and_named(key: str) -> None:
    details = refusal(PAIR | {key: (4, 24)})
    assert "no place" in details["reason"]
    assert '"strict": false' in details["reason"]
    assert details["keys"] == [key]
    contents = accept(PAIR | {key: (4, 24)}, strict=False)
    assert contents.left_out == (key,)
    assert used_keys(contents) == Counter(list(PAIR))
    assert "no place" in refusal({key: (4, 24)}, strict=False)["reason"]


@pytest.mark.parametrize(
    ("key", "looks_like"),
    [
        ("diffusion_model.blocks.0.cross_attn.k_img.lora_A.weight", "Wan I2V"),
        ("lora_unet_blocks_0_cross_attn_v_img.lora_down.weight", "Wan I2V"),
        ("transformer.blocks.0.attn2.add_k_proj.lora_A.weight", "Wan I2V"),
        ("diffusion_model.img_emb.proj.1.lora_A.weight", "Wan I2V"),
        ("diffusion_model.double_blocks.0.img_attn.qkv.lora_A.weight", "FLUX"),
        ("transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight", "FLUX"),
        ("lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight", "FLUX"),
        ("lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight", "Stable Diffusion"),
        ("transformer.transformer_blocks.0.attn.to_q.lora_A.weight", "Qwen-Image"),
        ("lora_unet_transformer_blocks_0_attn1_to_q.lora_down.weight", "LTX"),
    ],
)
def test_other_models_are_recognised_among_good_tensors_and_alone(key: str, looks_like: str) -> None:
    for shapes in (PAIR | {key: (4, 24)}, {key: (4, 24)}):
        details = refusal(shapes)
        assert "this looks like a LoRA for" in details["reason"]
        assert looks_like in details["reason"]
        assert details["keys"] == [key]
    assert accept(PAIR | {key: (4, 24)}, strict=False).left_out == (key,)
    assert looks_like in refusal({key: (4, 24)}, strict=False)["reason"]


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    ("width", "model"), [(1536, "Wan 2.1 1.3B"), (3072, "Wan 2.2 TI2V 5B"), (5120, "Wan 2.1 or 2.2 14B")]
)
@pytest.mark.parametrize(
    "key",
    [
        "diffusion_model.blocks.29.self_attn.q.lora_A.weight",
        "lora_unet_blocks_29_cross_attn_v.lora_down.weight",
        "transformer.blocks.0.attn2.to_out.0.lora_A.weight",
        "base_model.model.blocks.0.attn1.to_k.lora_A.default.weight",
        "lycoris_blocks_1_attn1_to_out_0.lora_down.weight",
        "blocks.0.self_attn.o.diff",
    ],
)
def test_another_member_of_the_family_is_named_under_every_prefix(
    key: str, width: int, model: str, strict: bool
) -> None:
    details = refusal({key: (1, width)}, strict=strict)
    assert f"LoRA for {model}" in details["reason"]
    assert "width 24" in details["reason"]


def test_image_to_video_is_recognised_by_its_patch_embedding() -> None:
    shapes = {"diffusion_model.patch_embedding.lora_A.weight": (4, 36, 1, 2, 2)}
    assert "Wan I2V (its patch embedding takes 36 channels)" in refusal(shapes, strict=False)["reason"]


@pytest.mark.parametrize("strict", [True, False])
def test_a_file_without_tensors_is_refused(strict: bool) -> None:
    assert "no tensors" in refusal({}, strict=strict)["reason"]


def test_ten_keys_are_named_and_all_are_counted() -> None:
    details = refusal(PAIR | {f"other.{number}": () for number in range(25)})
    assert len(details["keys"]) == 10
    assert details["count"] == 25


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    "shapes",
    [
        {f"diffusion_model.{number}": () for number in range(20_001)},
        {"x.oft_a" * 100_000 + ".": (), "x" * 5_000_000: ()},
    ],
)
def test_headers_made_to_take_forever_are_refused_at_once(shapes: Shapes, strict: bool) -> None:
    assert "too many or too long" in refusal(PAIR | shapes, strict=strict)["reason"]


def test_a_refusal_names_the_served_model() -> None:
    titled = replace(TINY, title="Wan 9 of the tests")
    for key, why in {"img_emb.proj.1.lora_A.weight": "not for", "other": "expected are layers of"}.items():
        with pytest.raises(LoraInvalid, match=f"{why} Wan 9 of the tests"):
            parse(header({key: (4, 24)}), titled, "mine")
