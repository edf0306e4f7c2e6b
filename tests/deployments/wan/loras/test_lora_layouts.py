"""Every layout of LoRA files on both experts, against formulas in float64 that know nothing of the service's code."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from serve_app.spec import PAIR, Expert, Recipe, Speed
from tests.deployments.wan.conftest import RECIPES, lora_file, make_spec
from tests.deployments.wan.experts import Experts, Weights, same
from tests.loras.layouts import LAYOUTS, Written, write

F64 = NDArray[np.float64]

_MERGED_ALWAYS = {name for name in LAYOUTS if name.startswith(("lokr", "dora", "patch", "lycoris"))}
_MERGED_ALWAYS |= {"full-rank", "extracted", "distilled"}
_MULTIPLIER = -0.7
_BF16_DIGITS = 8  # binary, the hidden one included
_ROUNDINGS = 2  # units in the last place that float32 may lose on the way to a sum ...
_DORA_ROUNDINGS = 6  # ... and to a row of another length


@pytest.fixture(scope="module")
def fp32(tiny_experts: Path) -> Experts:
    return Experts(tiny_experts)


@pytest.fixture(scope="module")
def bf16(tiny_experts: Path) -> Experts:
    return Experts(tiny_experts, torch.bfloat16)


def _apply(experts: Experts, written: Written, recipe: Recipe, speed: Speed = Speed.EXACT) -> list[str]:
    """Return how each side was applied."""
    loras = [lora_file(side, written.path, _MULTIPLIER) for side in PAIR]
    experts.apply(make_spec(*loras, recipe=recipe, speed=speed))
    return [lora.application for lora in experts.state.applied]


def _expected(start: Weights, written: Written, side: Expert) -> dict[str, F64]:
    formulas = written.high if side is Expert.HIGH else written.low
    return {name: formula(start[name].double().numpy(), _MULTIPLIER) for name, formula in formulas.items()}


def _check_merged(experts: Experts, written: Written, side: Expert, start: Weights) -> None:
    """Check that changed parameters have the exact value up to rounding, and the others equal `start`."""
    now, expected = experts.weights(side), _expected(start, written, side)
    for name, value in now.items():
        assert value.dtype is start[name].dtype
        if name not in expected:
            assert torch.equal(value, start[name]), name
            continue
        allowed = _last_place(expected[name], start[name]) * _roundings(value, written)
        assert (np.abs(value.double().numpy() - expected[name]) <= allowed).all(), name
        assert not torch.equal(value, start[name]), name


def _roundings(value: torch.Tensor, written: Written) -> int:
    """In bfloat16, one to the wrong neighbour: those in float32 before do not show."""
    if value.dtype is torch.bfloat16:
        return 1
    return _DORA_ROUNDINGS if "dora" in written.path.name else _ROUNDINGS


def _last_place(exact: F64, start: torch.Tensor) -> F64:
    """Return what one unit in the last place is worth: of each value in bfloat16, of the tensor's largest in float32.

    Sums that cancel are no more precise than their summands, which are of the size of the largest.
    """
    if start.dtype is torch.bfloat16:
        units: F64 = np.exp2(np.floor(np.log2(np.abs(exact) + 1e-6)) + 1 - _BF16_DIGITS)
        return units
    largest = np.float32(max(np.abs(exact).max(), start.abs().max().item()))
    return np.full(exact.shape, float(np.spacing(largest)))


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_preview_has_every_layout_merged_exactly(fp32: Experts, tmp_path: Path, name: str) -> None:
    written = write(name, tmp_path, seed=1)
    assert set(_apply(fp32, written, Recipe.PREVIEW)) == {"merged"}
    for side in PAIR:
        _check_merged(fp32, written, side, fp32.loaded[side])


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_preview_in_bfloat16_starts_from_wholly_rounded_experts(bf16: Experts, tmp_path: Path, name: str) -> None:
    written = write(name, tmp_path, seed=2, dtype="BF16")
    _apply(bf16, written, Recipe.PREVIEW)
    for side in PAIR:
        start = {key: value.bfloat16() for key, value in bf16.loaded[side].items()}
        _check_merged(bf16, written, side, start)


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_reference_recipe_has_adapters_where_they_can_be_exact(
    fp32: Experts, bf16: Experts, tmp_path: Path, name: str
) -> None:
    written = write(name, tmp_path, seed=3)
    for experts, tolerance in ((fp32, 1e-5), (bf16, 0.05)):
        applied = set(_apply(experts, written, Recipe.REFERENCE))
        if name in _MERGED_ALWAYS:
            assert applied == {"merged"}
            for side in PAIR:
                _check_merged(experts, written, side, experts.loaded[side])
            continue
        assert applied == {"adapter"}
        for side in PAIR:
            assert same(experts.weights(side), experts.loaded[side])
            _check_effect(experts, side, _expected(experts.loaded[side], written, side), tolerance)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_fast_render_has_every_layout_merged(fp32: Experts, bf16: Experts, tmp_path: Path, name: str) -> None:
    written = write(name, tmp_path, seed=5, dtype="BF16")
    for experts in (fp32, bf16):
        assert set(_apply(experts, written, Recipe.REFERENCE, Speed.FAST)) == {"merged"}
        for side in PAIR:
            _check_merged(experts, written, side, experts.loaded[side])


def _check_effect(experts: Experts, side: Expert, expected: dict[str, F64], tolerance: float) -> None:
    """Check that each adapted layer acts like one with the expected weight, and no other layer has an adapter."""
    adapted = {name for name, module in experts.expert(side).named_modules() if hasattr(module, "lora_A")}
    assert {f"{name}.weight" for name in adapted} == expected.keys()
    for name in adapted:
        layer = experts.expert(side).get_submodule(name)
        base = layer.base_layer
        with torch.no_grad():
            ones = torch.eye(base.in_features, dtype=base.weight.dtype)
            weight = layer(ones) - base.bias
        assert np.abs(weight.double().numpy().T - expected[f"{name}.weight"]).max() < tolerance, name


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32", "F64"])
def test_weights_of_every_float_type_are_read_exactly(fp32: Experts, tmp_path: Path, dtype: str) -> None:
    for recipe, name in ((Recipe.PREVIEW, "ai-toolkit-alpha"), (Recipe.REFERENCE, "dora-kohya-columns")):
        written = write(name, tmp_path, seed=4, dtype=dtype)
        _apply(fp32, written, recipe)
        for side in PAIR:
            _check_merged(fp32, written, side, fp32.loaded[side])


@pytest.mark.parametrize("recipe", RECIPES)
def test_several_loras_of_one_expert_add_up(fp32: Experts, tmp_path: Path, recipe: Recipe) -> None:
    files = [write(name, tmp_path, seed=seed) for seed, name in enumerate(("ai-toolkit", "peft", "kohya-alpha"))]
    factors = (0.5, -1.25, 2.0)
    loras = [lora_file(Expert.LOW, file.path, factor) for file, factor in zip(files, factors, strict=True)]
    fp32.apply(make_spec(*loras, recipe=recipe))
    start = {name: value.double().numpy() for name, value in fp32.loaded[Expert.LOW].items()}
    added = [
        {name: formula(start[name], factor) - start[name] for name, formula in file.low.items()}
        for file, factor in zip(files, factors, strict=True)
    ]
    expected = {name: start[name] + sum(deltas[name] for deltas in added) for name in files[0].low}
    if recipe is Recipe.REFERENCE:
        _check_effect(fp32, Expert.LOW, expected, 1e-5)
        return
    for name, exact in expected.items():
        assert np.abs(fp32.weights(Expert.LOW)[name].double().numpy() - exact).max() < 1e-6


def test_adapters_and_merges_of_one_expert_are_all_merged(fp32: Experts, tmp_path: Path) -> None:
    plain, lokr = (write(name, tmp_path).path for name in ("ai-toolkit", "lokr"))
    fp32.apply(make_spec(lora_file(Expert.HIGH, plain), lora_file(Expert.LOW, plain), lora_file(Expert.LOW, lokr)))
    assert [lora.application for lora in fp32.state.applied] == ["adapter", "merged", "merged"]
