"""The factor c of a change, from alpha tensors or from the metadata that diffusers writes instead."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers import WanTransformer3DModel
from peft import LoraConfig

from serve_app.loras.formats.changes import LoKr, LowRank
from serve_app.loras.formats.header import read_header
from serve_app.loras.formats.parser import parse
from serve_app.loras.formats.scales import alpha_keys, scale_of, unused_keys, wrong_alphas
from serve_app.loras.formats.values import read_alphas
from serve_app.spec import Expert
from tests.serve_app.loras.files import CONFIG, TINY, Tensors, pair, save
from tests.serve_app.loras.headers import PAIR, PIPELINE_HIGH, PIPELINE_LOW, STEM, accept, refusal


def adapter(**config: Any) -> dict[str, str]:
    return {"lora_adapter_metadata": json.dumps({"r": 4, "lora_alpha": 4} | config)}


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({}, 1.0),
        ({"lora_alpha": 8}, 2.0),
        ({"lora_alpha": 8, "use_rslora": True}, 4.0),
        ({"alpha_pattern": {"blocks.0.attn1.to_q": 2}}, 0.5),
        ({"alpha_pattern": {"to_q": 16, "attn1.to_q": 2}}, 4.0),
        ({"alpha_pattern": {"o_q": 2, "^attn1.to_q": 2}}, 1.0),
        ({"r": 8, "rank_pattern": {"attn1.to_q": 4}}, 1.0),
    ],
)
@pytest.mark.parametrize("part", ["", "transformer."])
def test_diffusers_metadata_gives_the_scale_as_peft_computes_it(
    config: dict[str, Any], scale: float, part: str
) -> None:
    text = json.dumps({part + key: value for key, value in ({"r": 4, "lora_alpha": 4} | config).items()})
    (change,) = accept(PIPELINE_HIGH, {"lora_adapter_metadata": text}).parts[None]
    assert isinstance(change, LowRank)
    assert change.scale == scale
    assert change.alpha is None


def test_diffusers_metadata_of_a_file_with_both_experts() -> None:
    config = {"transformer.r": 4, "transformer.lora_alpha": 4, "transformer_2.r": 4, "transformer_2.lora_alpha": 8}
    contents = accept(PIPELINE_HIGH | PIPELINE_LOW, {"lora_adapter_metadata": json.dumps(config)})
    scales = {
        expert: [change.scale for change in part if isinstance(change, LowRank)]
        for expert, part in contents.parts.items()
    }
    assert scales == {Expert.HIGH: [1.0], Expert.LOW: [2.0]}


@pytest.mark.parametrize(
    ("metadata", "why"),
    [
        ({"lora_adapter_metadata": "{"}, "no JSON"),
        ({"lora_adapter_metadata": "[" * 100_000}, "no JSON"),
        ({"lora_adapter_metadata": "[]"}, "no JSON object"),
        ({"lora_adapter_metadata": "{}"}, "no usable lora_alpha"),
        (adapter(lora_alpha=0), "no usable lora_alpha"),
        (adapter(lora_alpha=True), "no usable lora_alpha"),
        (adapter(lora_alpha=10**400), "no usable lora_alpha"),
        (adapter(lora_alpha=float("nan")), "no usable lora_alpha"),
        (adapter(r="4"), "no usable r"),
        (adapter(r=8), "rank 8, and its tensors have rank 4"),
        (adapter(rank_pattern={"to_q": 2}), "rank 2"),
        (adapter(rank_pattern=[1]), "no usable rank_pattern"),
        (adapter(alpha_pattern={"(a+)+": 1}), "more than a layer's name"),
        (adapter(alpha_pattern={"to_q": "1"}), "no usable to_q"),
        (adapter(alpha_pattern={f"x{number}": 1 for number in range(2001)}), "at most 2000 layers"),
        (adapter(lora_bias=True), "biases"),
        (adapter(bias="all"), "biases"),
        (adapter(fan_in_fan_out=True), "transposed"),
        (adapter(use_dora=True), "use_dora"),
    ],
)
def test_metadata_that_cannot_be_followed_is_refused(metadata: dict[str, str], why: str) -> None:
    reason = refusal(PAIR, metadata)["reason"]
    assert why in reason
    assert "lora_adapter_metadata" in reason


def test_metadata_and_alpha_tensors_contradict_each_other() -> None:
    assert "alpha tensors" in refusal(PAIR | {f"{STEM}.alpha": ()}, adapter())["reason"]


def test_the_scale_is_what_diffusers_and_peft_make_of_a_file_that_diffusers_saved(tmp_path: Path) -> None:
    config = LoraConfig(
        r=4,
        lora_alpha=6,
        target_modules=["to_q", "to_k"],
        alpha_pattern={"attn1.to_q": 3},
        rank_pattern={"attn2.to_k": 2},
    )
    expert = WanTransformer3DModel.from_config(CONFIG)
    expert.add_adapter(config)
    expert.save_lora_adapter(tmp_path)
    header = read_header(tmp_path / "pytorch_lora_weights.safetensors", "x")
    scales = {
        change.parameter: change.scale for change in parse(header, TINY, "x").changes() if isinstance(change, LowRank)
    }
    assert scales == {
        f"{name.removesuffix('.base_layer')}.weight": layer.scaling["default"]
        for name, layer in expert.named_modules()
        if hasattr(layer, "scaling")
    }
    assert set(scales.values()) == {6 / 4, 3 / 4, 6 / 2}


ALPHA_MODULE = "blocks.1.ffn.0"
ALPHA_STEM = f"diffusion_model.{ALPHA_MODULE}"
ALPHA = f"{ALPHA_STEM}.alpha"
WHOLE_LOKR: Tensors = {f"{ALPHA_STEM}.lokr_w1": np.ones((2, 2)), f"{ALPHA_STEM}.lokr_w2": np.ones((24, 12))}


def alphas(folder: Path, tensors: Tensors) -> dict[str, float]:
    path = save(folder / "x", pair("blocks.0.ffn.2") | tensors)
    header = read_header(path, "mine")
    with path.open("rb") as stream:
        return read_alphas(stream, header, parse(header, TINY, "mine"))


@pytest.mark.parametrize(
    "alpha", [np.float32(4), np.array([2], np.float16), np.float64(1e-300), np.float32(1e-6), np.float32(1e30)]
)
def test_alphas_of_any_format_are_read_and_any_positive_one_is_applied(tmp_path: Path, alpha: Any) -> None:
    found = alphas(tmp_path, pair(ALPHA_MODULE) | {ALPHA: np.asarray(alpha)})
    assert found == {ALPHA: float(np.asarray(alpha).reshape(-1)[0])}
    assert wrong_alphas(found) is None


@pytest.mark.parametrize(
    ("value", "why"), [(-1, "negative"), (np.nan, "no number"), (np.inf, "no number"), (0, "others as the rank")]
)
def test_other_alphas_are_refused_and_named(tmp_path: Path, value: float, why: str) -> None:
    fault = wrong_alphas(alphas(tmp_path, pair(ALPHA_MODULE) | {ALPHA: np.array([value], np.float16)}))
    assert fault is not None
    assert why in fault.reason
    assert fault.keys == [ALPHA]


def test_the_infinite_alpha_of_a_lokr_that_does_not_use_it_is_not_looked_at(tmp_path: Path) -> None:
    """AI Toolkit's lokr_full_rank saves 9999999999, in float16."""
    path = save(tmp_path / "x", WHOLE_LOKR | {ALPHA: np.array(np.inf, np.float16)})
    contents = parse(read_header(path, "mine"), TINY, "mine")
    assert unused_keys(contents) == {ALPHA}
    assert alpha_keys(contents) == ()
    (change,) = contents.changes()
    assert isinstance(change, LoKr)
    assert scale_of(change, {}) == 1


def test_the_scale_of_each_kind() -> None:
    def low_rank(alpha: str | None, scale: float | None = None) -> LowRank:
        return LowRank("p", "d", "u", alpha, None, 4, scale)

    assert scale_of(low_rank(None), {}) == 1
    assert scale_of(low_rank("a"), {"a": 2.0}) == 0.5
    assert scale_of(low_rank(None, 3.0), {}) == 3
