"""What trainers and tools put in front of a layer's name is stripped, in any order and number.

A wrapper that names an expert is the side. Each key has exactly one place, or the file is refused.
"""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.loras.formats.changes import Difference
from serve_app.models.architecture import Module
from serve_app.spec import Expert
from tests.serve_app.loras.files import TINY
from tests.serve_app.loras.headers import accept, refusal

DOTTED = (
    *("base_model.model.", "model.", "diffusion_model.", "transformer.", "module.", "unet.", "dit.", "pipe."),
    *("_orig_mod.", "_fsdp_wrapped_module.", "lora_unet.", "network.", "generator.", "DiT.", "Diffusion_Model."),
    *("backbone.", "student.", "ema.", "state_dict.", "peft_model.", "wan2.2.", "wan_video.", "WanTransformer3DModel."),
    *("pl_module.", "lightning_module.", "policy.", "actor.", "lora_layers.", "inner_model.", "core.", "model_engine."),
    *("adapters.", "peft.", "accelerator.", "video_transformer.", "flow_model.", "sd."),
)
UNDERSCORED = ("lora_unet_", "lora_unet__", "lycoris_", "lora_transformer_", "lora_unet_diffusion_model_", "unet_")
HIGH = (
    *("high_noise_model.", "high_noise.", "transformer_1.", "transformer_high_noise.", "dit1.", "model_high."),
    *("noise_high.", "experts.high.", "moe_high_", "High_Noise.", "lora_transformer_1_"),
    *("high.", "lora_unet_high_noise_", "lora_unet_transformer_1_", "unet_1.", "highnoise.", "dit_hn."),
    *("HighNoiseModel.", "high-noise.", "highNoiseTransformer."),
)
LOW = (
    *("low_noise_model.", "low_noise.", "transformer_2.", "transformer_low_noise.", "dit2.", "model_low."),
    *("noise_low.", "experts.low.", "moe_low_", "Low_Noise.", "lora_transformer_2_"),
    *("low.", "lora_unet_low_noise_", "lora_unet_transformer_2_", "unet_2.", "lownoise.", "dit_ln."),
    *("LowNoiseModel.", "low-noise.", "lowNoiseTransformer."),
)
MODULES = st.sampled_from(TINY.modules)


def spelled(prefix: str, name: str) -> str:
    return prefix + (name.replace(".", "_") if prefix.endswith("_") else name)


@given(st.lists(st.sampled_from(DOTTED), max_size=4), st.sampled_from((*UNDERSCORED, "")), MODULES)
def test_wrappers_in_any_order_and_number(wrappers: list[str], last: str, module: Module) -> None:
    prefix = "".join(wrappers) + last
    for name in (module.name, module.original):
        key = f"{spelled(prefix, name)}.diff"
        assert accept({key: module.shape}).parts == {None: (Difference(module.parameter, key),)}


@pytest.mark.parametrize(("prefix", "expert"), [(p, Expert.HIGH) for p in HIGH] + [(p, Expert.LOW) for p in LOW])
@pytest.mark.parametrize("outer", ["", "base_model.model.", "model.diffusion_model.", "module._orig_mod.", "pipe."])
def test_a_wrapper_that_names_an_expert_is_the_side(prefix: str, expert: Expert, outer: str) -> None:
    for module in TINY.modules:
        key = f"{outer}{spelled(prefix, module.original)}.diff"
        assert accept({key: module.shape}).parts == {expert: (Difference(module.parameter, key),)}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("transformer.", "transformer_2."),
        ("dit.", "dit2."),
        ("pipe.dit.", "pipe.dit2."),
        ("unet.", "unet_2."),
        ("model.", "model_2."),
        ("base_model.model.transformer.", "base_model.model.transformer_2."),
        ("lora_unet_dit_", "lora_unet_dit2_"),
        ("lora_transformer_", "lora_transformer_2_"),
    ],
)
def test_the_first_denoiser_beside_a_second_is_the_high_noise_expert(first: str, second: str) -> None:
    module = TINY.modules[-1]
    keys = [f"{spelled(prefix, module.original)}.diff" for prefix in (first, second)]
    expected = {
        Expert.HIGH: (Difference(module.parameter, keys[0]),),
        Expert.LOW: (Difference(module.parameter, keys[1]),),
    }
    assert accept(dict.fromkeys(keys, module.shape)).parts == expected


@pytest.mark.parametrize(
    ("one", "other"), list(permutations(("", "diffusion_model.", "transformer.", "lora_unet__"), 2))
)
def test_one_tensor_under_two_wrappers_is_refused(one: str, other: str) -> None:
    module = TINY.modules[-1]
    details = refusal({f"{spelled(prefix, module.original)}.diff": module.shape for prefix in (one, other)})
    assert "several of its tensors mean the same part" in details["reason"]
    assert details["count"] == 2


@pytest.mark.parametrize(
    ("down", "up"),
    [
        ("lora_A", "lora_B"),
        ("lora_linear_layer.down.weight", "lora_linear_layer.up.weight"),
        ("lora.down.weight", "lora.up.weight"),
        ("lora_A.default_0.weight", "lora_B.default_0.weight"),
    ],
)
def test_the_halves_of_a_lora_under_other_names(down: str, up: str) -> None:
    stem = "diffusion_model.blocks.0.self_attn.q"
    (change,) = accept({f"{stem}.{down}": (4, 24), f"{stem}.{up}": (24, 4)}).changes()
    assert change.keys == (f"{stem}.{down}", f"{stem}.{up}")
    assert refusal({f"{stem}.{down}": (4, 24)})["keys"] == [f"{stem}.{up}"]


@pytest.mark.parametrize("wrapper", ["high_noise_model.transformer_2.", "transformer_1.low_noise.", "dit2.high."])
def test_wrappers_that_name_both_experts_have_no_place(wrapper: str) -> None:
    module = TINY.modules[-1]
    assert "no place" in refusal({f"{wrapper}{module.original}.diff": module.shape})["reason"]


@pytest.mark.parametrize("plain", ["blocks.0.self_attn.q.", "diffusion_model.blocks.0.self_attn.q."])
@pytest.mark.parametrize("sided", ["low_noise_model.", "transformer_2.", "high_noise."])
def test_tensors_that_name_no_expert_beside_others_that_do_are_refused(plain: str, sided: str) -> None:
    details = refusal({f"{plain}diff": (24, 24), f"{sided}blocks.0.self_attn.q.diff": (24, 24)})
    assert "which expert" in details["reason"]
    assert details["keys"] == [f"{plain}diff"]


@pytest.mark.parametrize(
    "stem",
    [
        *(
            "lora_unet_transformer_blocks_0_attn1_to_q",
            "transformer_blocks.0.attn1.to_q",
            "lora_te_blocks_0_attn1_to_q",
        ),
        *("text_encoder.blocks.0.attn1.to_q", "vae.blocks.0.attn1.to_q", "lycoris_transformer_blocks_0_attn1_to_q"),
        "double_blocks.0.self_attn.q",
    ],
)
def test_layers_of_other_models_have_no_place(stem: str) -> None:
    refusal({f"{stem}.diff": (24, 24)})
