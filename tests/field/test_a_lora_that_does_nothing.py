"""A LoRA whose changes are all zero, or too small to be seen, is rendered with a warning, not in silence."""

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from serve_app.loras.formats.values import check_file
from serve_app.spec import Expert
from tests.client import body
from tests.fixtures.api import Api
from tests.loras.layouts import LAYOUTS, write
from tests.serve_app.loras.files import TINY, Tensors, full, save

NOTHING = "all changes of this file are zero"
STEM = "diffusion_model.blocks.0.self_attn.q"
NORM = "diffusion_model.blocks.0.norm3"


def changed(tensors: Tensors, ending: str, value: float) -> Tensors:
    return {key: np.full_like(old, value) if key.endswith(ending) else old for key, old in tensors.items()}


def alphas(alpha: float) -> Tensors:
    downs = [key for key in full() if "lora_A" in key]
    return {key.replace("lora_A.weight", "alpha"): np.array(alpha) for key in downs}


def lokr(w1: float, w2: float) -> Tensors:
    return {f"{STEM}.lokr_w1": np.full((4, 3), w1, "f2"), f"{STEM}.lokr_w2": np.full((6, 8), w2, "f2")}


IDLE: dict[str, Tensors] = {
    "up": changed(full(), "lora_B.weight", 0),
    "down": changed(full(), "lora_A.weight", 0),
    "negative-zero": changed(full(), "lora_B.weight", -0.0),
    "alpha": full() | alphas(1e-30),
    "diff": {f"{STEM}.diff": np.zeros((24, 24), "f4"), f"{NORM}.diff_b": np.zeros(24, "f4")},
    "tiny-diff": {f"{STEM}.diff": np.full((24, 24), 1e-30, "f4")},
    "lokr-first": lokr(0, 1),
    "lokr-second": lokr(1, 0),
    "table": {"diffusion_model.head.diff_m": np.zeros((1, 2, 24), "f4")},
}
IDLE["dora"] = IDLE["up"] | {
    key.replace("lora_B.weight", "magnitude"): np.ones(len(value), "f2")
    for key, value in full().items()
    if "lora_B" in key
}
ACTING: dict[str, Tensors] = {
    "plain": full(),
    "one-layer": changed(full(), "lora_B.weight", 0) | {f"{STEM}.lora_B.weight": np.full((24, 4), 1e-3, "f2")},
    "one-number": {f"{STEM}.diff": np.eye(24, dtype="f4") * np.eye(24, 1, dtype="f4") * 1e-3},
    "small-alpha": full() | alphas(0.01),
    "lokr": lokr(0.1, 0.1),
}


async def warnings(api: Api, name: str, **of_lora: Any) -> tuple[list[str], list[str]]:
    """Return what inspection and the accepted spec say of the file."""
    loras = [{"path": name, "transformer": "high", **of_lora}]
    answer = await api.http.post("/v1/loras/inspect", json={"loras": loras})
    assert answer.status_code == httpx.codes.OK
    (spec,) = await api.specs(body(loras=loras))
    return answer.json()["files"][0]["report"]["warnings"], list(spec.warnings)


@pytest.mark.parametrize("kind", IDLE)
async def test_is_warned_of_in_inspection_and_in_the_result(kind: str, api: Api) -> None:
    save(api.lora_root / "mine.safetensors", IDLE[kind])
    inspected, accepted = await warnings(api, "mine.safetensors")
    assert inspected == accepted
    assert [NOTHING in warning for warning in accepted] == [True]


@pytest.mark.parametrize("kind", ACTING)
async def test_one_that_acts_anywhere_is_not(kind: str, api: Api) -> None:
    save(api.lora_root / "mine.safetensors", ACTING[kind])
    assert await warnings(api, "mine.safetensors") == ([], [])


async def test_the_magnitudes_of_a_dora_are_left_aside(api: Api) -> None:
    save(api.lora_root / "mine.safetensors", IDLE["dora"])
    _, accepted = await warnings(api, "mine.safetensors")
    assert accepted[0].endswith("are zero but for the magnitudes of its DoRA")


@pytest.mark.parametrize("multiplier", [0, -0.0, 1e-30])
async def test_a_multiplier_of_nothing_is_warned_of(multiplier: float, api: Api) -> None:
    save(api.lora_root / "mine.safetensors", full())
    _, accepted = await warnings(api, "mine.safetensors", network_multiplier=multiplier)
    assert [NOTHING in warning and "network_multiplier" in warning for warning in accepted] == [True]


async def test_one_half_of_a_file_with_both_experts_that_does_nothing(api: Api) -> None:
    halves = {
        key.replace("diffusion_model.", f"{side}_noise_model."): value if side == "high" else np.zeros_like(value)
        for side in ("high", "low")
        for key, value in full().items()
    }
    save(api.lora_root / "both.safetensors", halves)
    (spec,) = await api.specs(body(loras=[{"path": "both.safetensors"}]))
    assert any("all changes of this file for the low noise expert are zero" in warning for warning in spec.warnings)
    assert not any("for the high noise expert are zero" in warning for warning in spec.warnings)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_layout_with_numbers_in_it_is_taken_for_one(layout: str, tmp_path: Path) -> None:
    assert check_file(write(layout, tmp_path).path, TINY, layout).contents.idle == ()


def test_expert_labels_are_those_of_messages() -> None:
    assert (Expert.HIGH.label, Expert.LOW.label) == ("high noise expert", "low noise expert")
