"""Headers only: which files are understood, and as what."""

from collections import Counter
from pathlib import Path

import pytest

from serve_app.loras.formats.changes import Difference, Layout, LoKr, LowRank
from serve_app.loras.formats.header import read_header
from serve_app.loras.formats.parser import parse
from serve_app.models.architecture import WanArchitecture
from serve_app.models.card import load_card
from serve_app.spec import PAIR as BOTH
from serve_app.spec import Expert
from tests.loras.layouts import LAYOUTS, write
from tests.serve_app.loras.files import TINY
from tests.serve_app.loras.headers import (
    HIGH,
    LOKR,
    LOW,
    PAIR,
    PIPELINE_HIGH,
    PIPELINE_LOW,
    STEM,
    Shapes,
    accept,
    header,
    used_keys,
)


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("strict", [True, False])
def test_every_layout_is_read_with_each_key_in_exactly_one_change(name: str, strict: bool, tmp_path: Path) -> None:
    written = write(name, tmp_path)
    found = read_header(written.path, name)
    contents = parse(found, TINY, name, strict=strict)
    assert used_keys(contents) == Counter(list(found.tensors))
    assert contents.left_out == ()
    for expert, expected in ((Expert.HIGH, written.high), (Expert.LOW, written.low)):
        assert {change.parameter for change in contents.changes_for(expert)} == set(expected)
    assert contents.combined == name.startswith("combined")


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


def test_the_factors_of_a_lokr() -> None:
    (change,) = accept(LOKR | {f"{STEM}.alpha": ()}).parts[None]
    assert isinstance(change, LoKr)
    assert (change.w1.keys, change.w1.rank) == ((f"{STEM}.lokr_w1",), None)
    assert (change.w2.keys, change.w2.rank) == ((f"{STEM}.lokr_w2_a", f"{STEM}.lokr_w2_b"), 2)
    assert (change.alpha, change.rank) == (f"{STEM}.alpha", 2)


def test_a_lora_and_a_difference_of_the_same_weight_are_two_changes() -> None:
    shapes = PAIR | {f"{STEM}.diff": (24, 24), f"{STEM}.diff_b": (24,)}
    assert [change.parameter for change in accept(shapes).parts[None]] == [
        "blocks.0.attn1.to_q.weight",
        "blocks.0.attn1.to_q.weight",
        "blocks.0.attn1.to_q.bias",
    ]


def test_conventions_may_differ_between_modules_and_most_of_the_keys_name_the_layout() -> None:
    shapes = PAIR | {
        "lora_unet_blocks_1_ffn_0.lora_down.weight": (1, 24),
        "lora_unet_blocks_1_ffn_0.lora_up.weight": (48, 1),
    }
    contents = accept(shapes | {"transformer.proj_out.diff_b": (64,), f"{STEM}.alpha": ()})
    assert contents.layout is Layout.AI_TOOLKIT
    assert used_keys(contents).total() == 6


@pytest.mark.parametrize(
    ("shapes", "experts"),
    [
        (HIGH | LOW, {Expert.HIGH, Expert.LOW}),
        (HIGH, {Expert.HIGH}),
        (LOW, {Expert.LOW}),
        (PIPELINE_LOW, {Expert.LOW}),
        (PIPELINE_HIGH | PIPELINE_LOW, {Expert.HIGH, Expert.LOW}),
        (PIPELINE_HIGH, {None}),
        (
            {"lycoris_transformer_1_proj_out.diff": (64, 24), "lycoris_transformer_2_proj_out.diff": (64, 24)},
            {Expert.HIGH, Expert.LOW},
        ),
    ],
)
def test_which_experts_a_file_speaks_of(shapes: Shapes, experts: set[Expert | None]) -> None:
    contents = accept(shapes)
    assert set(contents.parts) == experts
    assert contents.combined == (experts != {None})
    assert all(bool(contents.changes_for(expert)) == (bool({expert, None} & experts)) for expert in BOTH)


def test_the_full_size_layout_is_accepted() -> None:
    model = WanArchitecture.from_config(load_card("wan22_14b_t2v").architecture)
    shapes: Shapes = {}
    for module in model.modules:
        if module.is_linear and module.name.startswith("blocks."):
            shapes[f"diffusion_model.{module.original}.lora_A.weight"] = (32, module.shape[1])
            shapes[f"diffusion_model.{module.original}.lora_B.weight"] = (module.shape[0], 32)
    assert len(shapes) == 800
    assert len(parse(header(shapes), model, "x").parts[None]) == 400
