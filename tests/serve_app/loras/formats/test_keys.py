"""State-dict keys of every trainer: prefixes, suffixes, and the module that they mean."""

import pytest

from serve_app.loras.formats.changes import Difference, Layout, LowRank
from serve_app.loras.formats.keys import other_half
from tests.serve_app.loras.files import TINY
from tests.serve_app.loras.headers import PAIR, STEM, Shapes, accept, refusal, used_keys


@pytest.mark.parametrize(
    ("prefix", "layout"),
    [
        ("diffusion_model.", Layout.AI_TOOLKIT),
        ("model.diffusion_model.", Layout.AI_TOOLKIT),
        ("transformer.", Layout.DIFFUSERS),
        ("base_model.model.", Layout.PEFT),
        ("base_model.model.diffusion_model.", Layout.PEFT),
        ("base_model.model.transformer.", Layout.PEFT),
        ("", Layout.BARE),
        ("lora_unet_", Layout.KOHYA),
        ("lycoris_", Layout.LYCORIS),
    ],
)
def test_any_prefix_goes_with_either_naming_of_any_module(prefix: str, layout: Layout) -> None:
    for module in TINY.modules:
        for name in (module.name, module.original):
            spelled = name.replace(".", "_") if prefix.endswith("_") else name
            contents = accept({f"{prefix}{spelled}.diff": module.shape})
            assert contents.parts == {None: (Difference(module.parameter, f"{prefix}{spelled}.diff"),)}
            assert contents.layout is layout


@pytest.mark.parametrize(
    ("down", "up"),
    [
        ("lora_A.weight", "lora_B.weight"),
        ("lora_down.weight", "lora_up.weight"),
        ("lora.down.weight", "lora.up.weight"),
        ("lora_A.default.weight", "lora_B.default.weight"),
        ("lora_A.high_noise.weight", "lora_B.high_noise.weight"),
        ("lora_A.weight", "lora_up.weight"),
    ],
)
def test_both_halves_under_any_convention(down: str, up: str) -> None:
    shapes: Shapes = {f"{STEM}.{down}": (3, 24), f"{STEM}.{up}": (24, 3), f"{STEM}.alpha": (1,)}
    change = LowRank("blocks.0.attn1.to_q.weight", f"{STEM}.{down}", f"{STEM}.{up}", f"{STEM}.alpha", None, 3)
    assert accept(shapes).parts == {None: (change,)}


@pytest.mark.parametrize(
    "ending",
    [
        "dora_scale",
        "magnitude",
        "lora_magnitude_vector",
        "lora_magnitude_vector.weight",
        "lora_magnitude_vector.default",
        "lora_magnitude_vector.default.weight",
    ],
)
@pytest.mark.parametrize("shape", [(24,), (24, 1), (1, 24)])
def test_every_spelling_of_a_dora(ending: str, shape: tuple[int, ...]) -> None:
    (change,) = accept(PAIR | {f"{STEM}.{ending}": shape}).parts[None]
    assert isinstance(change, LowRank)
    assert change.magnitude == f"{STEM}.{ending}"


def test_conventions_may_differ_between_modules_and_most_of_the_keys_name_the_layout() -> None:
    shapes = PAIR | {
        "lora_unet_blocks_1_ffn_0.lora_down.weight": (1, 24),
        "lora_unet_blocks_1_ffn_0.lora_up.weight": (48, 1),
    }
    contents = accept(shapes | {"transformer.proj_out.diff_b": (64,), f"{STEM}.alpha": ()})
    assert contents.layout is Layout.AI_TOOLKIT
    assert used_keys(contents).total() == 6


@pytest.mark.parametrize("key", ["x" + ".oft_a" * 200_000 + ".", ".lora_A" * 200_000, "blocks.0." * 200_000])
def test_a_name_of_megabytes_is_unknown_at_once(key: str) -> None:
    assert accept(PAIR | {key: ()}, strict=False).left_out == (key,)
    assert len(refusal(PAIR | {key: ()})["keys"][0]) == 200


def test_a_key_that_is_no_half_has_no_other() -> None:
    with pytest.raises(ValueError, match="alpha"):
        other_half(f"{STEM}.alpha")
