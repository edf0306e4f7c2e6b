"""Headers only: which files are understood, and as what."""

from collections import Counter
from pathlib import Path

import pytest

from serve_app.loras.formats.changes import LoKr
from serve_app.loras.formats.header import read_header
from serve_app.loras.formats.parser import parse
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
    model = load_card("wan22_14b_t2v").architecture
    shapes: Shapes = {}
    for module in model.modules:
        if module.is_linear and module.name.startswith("blocks."):
            shapes[f"diffusion_model.{module.original}.lora_A.weight"] = (32, module.shape[1])
            shapes[f"diffusion_model.{module.original}.lora_B.weight"] = (module.shape[0], 32)
    assert len(shapes) == 800
    assert len(parse(header(shapes), model, "x").parts[None]) == 400
