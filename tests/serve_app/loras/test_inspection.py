"""Inspection reports: what LoRA files of every layout hold, and the recipe that they recommend."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serve_app.errors import LoraInvalid
from serve_app.loras.formats import Layout, SafetensorsHeader, TensorInfo, parse, read_header
from serve_app.loras.inspection import describe, inspect_file, warnings_of_pair
from serve_app.loras.report import FileReport
from serve_app.models.card import load_card
from serve_app.models.families import Family
from serve_app.spec import Expert, Recipe, Sampler
from tests.loras.layouts import LAYOUTS, write
from tests.serve_app.loras.files import CARD, METADATA, TINY, full, save

SOFTWARE = {"software": json.dumps({"name": "ai-toolkit", "version": "0.9.4"})}


def report(folder: Path, layout: str, **options: Any) -> FileReport:
    return inspect_file(write(layout, folder).path, layout, CARD, **options)


def test_what_an_ordinary_file_holds(tmp_path: Path) -> None:
    metadata = METADATA | SOFTWARE | {"training_info": '{"step": 1500, "epoch": 12}'}
    path = save(tmp_path / "a", full(4), metadata)
    found = inspect_file(path, "folder/a_high_noise.safetensors", CARD)
    assert found.file_name == "a_high_noise.safetensors"
    assert (found.layout, found.combined, found.tensors) == (Layout.AI_TOOLKIT, False, 40)
    assert (found.size, found.dtypes) == (path.stat().st_size, {"F16": 40})
    (part,) = found.parts
    assert part.expert is None
    assert part.kinds == {"lora": 20}
    assert part.families == {Family.SELF_ATTENTION: 8, Family.CROSS_ATTENTION: 8, Family.FEED_FORWARD: 4}
    assert part.blocks == "0-1"
    assert part.ranks is not None
    assert (part.ranks.min, part.ranks.max, part.ranks.distinct) == (4, 4, (4,))
    assert part.elements == 16 * 2 * 4 * 24 + 4 * 4 * (24 + 48)
    assert found.scales is not None
    assert (found.scales.min, found.scales.max, found.scales.implied, found.scales.with_alpha) == (1, 1, 20, 0)
    assert (found.trainer, found.trained_with) == ("AI Toolkit 0.9.4", "0.9.4")
    assert (found.trained_step, found.trained_epoch, found.base_model) == (1500, 12, "wan_2.2_14b")
    assert found.likely_side is Expert.HIGH
    assert (found.recommended.recipe, found.recommended.sampler, found.recommended.shift) == (
        Recipe.PREVIEW,
        Sampler.EULER,
        5.0,
    )
    assert (found.left_out, found.warnings, found.norms) == ((), (), None)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_can_be_described_and_sent(layout: str, tmp_path: Path) -> None:
    found = report(tmp_path, layout, norms=True)
    assert FileReport.model_validate_json(found.model_dump_json()) == found
    assert found.recommended.recipe is Recipe.REFERENCE
    assert found.combined == (len(found.parts) == 2)


def test_kinds_ranks_and_scales_of_a_mixed_file(tmp_path: Path) -> None:
    found = report(tmp_path, "mixed-ranks")
    (part,) = found.parts
    assert part.ranks is not None
    assert part.ranks.distinct == tuple(range(1, 18))
    assert found.scales is not None
    assert (found.scales.with_alpha, found.scales.implied) == (9, 8)
    (part,) = report(tmp_path, "extracted").parts
    assert part.kinds == {"lora": 21, "difference": 20 + 12 + 2 + 3 + 1}
    assert part.families[Family.MODULATION] == 3
    assert part.families[Family.HEAD] == 1
    (part,) = report(tmp_path, "dora-peft").parts
    assert part.kinds == {"dora": 20}
    (part,) = report(tmp_path, "lokr").parts
    assert (part.kinds, part.ranks) == ({"lokr": 20}, None)


def test_a_combined_file_is_described_for_each_expert(tmp_path: Path) -> None:
    found = report(tmp_path, "combined")
    assert [part.expert for part in found.parts] == [Expert.HIGH, Expert.LOW]
    assert all(part.families[Family.FEED_FORWARD] == 4 for part in found.parts)
    assert found.likely_side is None


def test_a_header_alone_tells_all_but_alphas(tmp_path: Path) -> None:
    written = write("kohya-alpha", tmp_path)
    header = read_header(written.path, "x")
    found = describe(header, parse(header, TINY, "x"), "x_low.safetensors", CARD, expert=Expert.HIGH)
    assert found.scales is None
    assert any("looks like a LoRA for the low noise expert" in warning for warning in found.warnings)


def test_peft_files_do_not_carry_their_alpha(tmp_path: Path) -> None:
    assert any("adapter_config.json" in warning for warning in report(tmp_path, "peft").warnings)
    assert report(tmp_path, "ai-toolkit").warnings == ()


def test_what_is_left_out_is_listed(tmp_path: Path) -> None:
    path = save(tmp_path / "a", full() | {"text_encoder.x": np.array([1.0])})
    with pytest.raises(LoraInvalid, match="no place"):
        inspect_file(path, "a", CARD)
    assert inspect_file(path, "a", CARD, strict=False).left_out == ("text_encoder.x",)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_looked_at_must_be_numbers(value: float, tmp_path: Path) -> None:
    key = "diffusion_model.blocks.0.ffn.0"
    path = save(tmp_path / "a", full() | {f"{key}.lora_A.weight": np.full((4, 24), value)})
    assert inspect_file(path, "a", CARD).norms is None
    with pytest.raises(LoraInvalid, match="not finite") as caught:
        inspect_file(path, "a", CARD, norms=True)
    assert caught.value.details["keys"] == ["blocks.0.ffn.net.0.proj.weight"]
    save(path, full() | {f"{key}.alpha": np.array(-1.0)})
    with pytest.raises(LoraInvalid, match="negative"):
        inspect_file(path, "a", CARD)


def test_the_header_of_a_full_size_file_is_described_in_milliseconds() -> None:
    card = load_card("wan22_14b_t2v")
    tensors = {}
    for module in card.architecture.modules:
        if module.is_linear and module.name.startswith("blocks."):
            tensors[f"diffusion_model.{module.original}.lora_A.weight"] = TensorInfo(
                "BF16", (32, module.shape[1]), 0, 0
            )
            tensors[f"diffusion_model.{module.original}.lora_B.weight"] = TensorInfo(
                "BF16", (module.shape[0], 32), 0, 0
            )
    header = SafetensorsHeader(tensors, {}, 8, 8)
    describe(header, parse(header, card.architecture, "x"), "x", card)
    start = time.thread_time()  # of this thread alone, whatever else the machine does
    found = describe(header, parse(header, card.architecture, "x"), "x", card)
    assert time.thread_time() - start < 0.3  # some 15 ms
    assert found.parts[0].blocks == "0-39"
    assert found.parts[0].elements == 153_354_240


def test_what_about_a_pair_looks_like_a_mistake(tmp_path: Path) -> None:
    def one(name: str, version: str, step: int) -> FileReport:
        software = {"software": json.dumps({"name": "ai-toolkit", "version": version})}
        info = {"training_info": json.dumps({"step": step, "epoch": 1})}
        return inspect_file(save(tmp_path / name, full(), METADATA | software | info), name, CARD)

    high, low = one("a_high_noise", "0.9.4", 1000), one("a_low_noise", "0.9.4", 1000)
    assert warnings_of_pair(high, low) == []
    other = warnings_of_pair(high, one("b_low_noise", "0.9.2", 2000))
    assert "0.9.4 (high) and 0.9.2 (low)" in other[0]
    assert "1000 (high) and 2000 (low)" in other[1]


def test_a_model_with_one_expert_has_no_sides(tmp_path: Path) -> None:
    only = CARD.model_copy(update={"experts": (Expert.ONLY,), "preview_shift": 3.5})
    path = save(tmp_path / "a", full(), METADATA | SOFTWARE)
    found = inspect_file(path, "a_low_noise", only, expert=Expert.ONLY)
    assert (found.likely_side, found.warnings) == (None, ())
    assert found.recommended.shift == 3.5


def test_the_documentation_names_the_experts_of_a_pair_only() -> None:
    schema = json.dumps(FileReport.model_json_schema())
    assert '"enum": ["high", "low"]' in schema
    assert '"only"' not in schema
