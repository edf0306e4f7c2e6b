"""FP8 on the CPU, by the same product as on a GPU: close to the layers it stands for, and gone without a trace."""

import random
from pathlib import Path

import pytest
import torch

from deployments.wan.speed.float8 import Float8Layers, Float8Linear, check_float8
from serve_app.errors import ConfigurationInvalid
from serve_app.models.families import Family
from serve_app.spec import PAIR, Expert, RenderSpec, Speed
from tests.deployments.wan.conftest import make_spec
from tests.deployments.wan.experts import CPU, Experts, Weights, forward, same
from tests.deployments.wan.walks import next_spec

FEW_PERCENT = 0.06  # e4m3 has three bits behind the point: each number is off by 6 % at most, and by 2 % on average


def relative(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(5, 48), (2, 3, 48)])
def test_a_layer_in_fp8_is_within_a_few_percent(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    linear = torch.nn.Linear(48, 32, dtype=dtype)
    inputs = torch.randn(shape, dtype=dtype) * torch.logspace(-3, 3, shape[-2], dtype=dtype).unsqueeze(-1)
    layer = Float8Linear(linear)
    layer.take(linear.weight, CPU)
    with torch.no_grad():
        made, expected = layer(inputs), linear(inputs)
    assert made.dtype is dtype
    for row, wanted in zip(made.flatten(0, -2), expected.flatten(0, -2), strict=True):  # each token has its own scale
        assert relative(row.float(), wanted.float()) < FEW_PERCENT


def test_zeros_stay_zeros_and_the_largest_number_does_not_overflow() -> None:
    linear = torch.nn.Linear(16, 16, bias=False)
    torch.nn.init.zeros_(linear.weight)
    linear.weight.data[0, 0] = torch.finfo(torch.float32).max / 2
    layer = Float8Linear(linear)
    layer.take(linear.weight, CPU)
    with torch.no_grad():
        assert layer(torch.zeros(1, 16)).abs().max() == 0
        assert torch.isfinite(layer(torch.ones(1, 16))).all()


def test_other_weights_are_copied_again_and_every_switch_leaves_them_alone(
    tiny_experts: Path, layouts: dict[str, Path]
) -> None:
    """A thousand switches: `turbo` renders of one expert pair after another, beside experts that never met FP8."""
    choice = random.Random(8)
    experts, plain = Experts(tiny_experts), Experts(tiny_experts)
    layers = Float8Layers([experts.expert(side) for side in PAIR], CPU)
    spec = make_spec(speed=Speed.TURBO)
    for count in range(1000):
        if count % 4 == 0:
            spec = next_spec(choice, layouts, spec).model_copy(update={"speed": Speed.TURBO})
        else:
            scales = (lora.model_copy(update={"multiplier": choice.random()}) for lora in spec.loras)
            spec = spec.model_copy(update={"loras": tuple(scales)})
        experts.apply(spec)
        with layers.in_place():
            pass
        if count % 100 == 0:
            _must_stand_for(layers, experts, plain, spec)
    experts.clear(spec)
    assert all(same(experts.weights(side), experts.loaded[side]) for side in PAIR)


def _must_stand_for(layers: Float8Layers, experts: Experts, plain: Experts, spec: RenderSpec) -> None:
    plain.apply(spec)
    fresh = Float8Layers([plain.expert(side) for side in PAIR], CPU)
    for side in PAIR:
        exact = forward(plain, side)
        with layers.in_place(), fresh.in_place():
            made = forward(experts, side)
            assert torch.equal(made, forward(plain, side))
        assert not torch.equal(made, exact)
        assert torch.equal(forward(experts, side), exact)


def test_only_the_groups_that_hold_up_are_copied(tiny_experts: Path) -> None:
    experts = Experts(tiny_experts)
    expert = experts.expert(Expert.HIGH)
    before = _linears(expert)
    with Float8Layers([expert], CPU).in_place():
        copied = {name for name, module in expert.named_modules() if isinstance(module, Float8Linear)}
    assert copied == {f"blocks.{block}.ffn.net.{part}" for block in (0, 1) for part in ("0.proj", "2")}
    assert _linears(expert) == before
    everything = Float8Layers([expert], CPU, frozenset(Family))
    with everything.in_place():
        assert not [name for name in _linears(expert) if name.startswith("blocks.")]


def test_an_error_while_they_are_in_place_puts_the_layers_back(tiny_experts: Path) -> None:
    experts = Experts(tiny_experts)
    layers = Float8Layers([experts.expert(side) for side in PAIR], CPU)
    weights: Weights = experts.weights(Expert.HIGH)
    with pytest.raises(torch.OutOfMemoryError), layers.in_place():
        raise torch.OutOfMemoryError("CUDA out of memory")
    assert same(experts.weights(Expert.HIGH), weights)
    assert not any(isinstance(module, Float8Linear) for module in experts.expert(Expert.HIGH).modules())


def _linears(expert: torch.nn.Module) -> set[str]:
    return {name for name, module in expert.named_modules() if isinstance(module, torch.nn.Linear)}


@pytest.mark.parametrize(
    ("capability", "dtype", "named"),
    [
        ((8, 6), torch.bfloat16, "turbo needs a GPU that multiplies in FP8 .*Card has capability 8.6"),
        ((9, 0), torch.float32, "turbo needs dtype: bfloat16"),
    ],
)
def test_a_card_that_cannot_is_refused_by_its_capability(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], dtype: torch.dtype, named: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Card")
    with pytest.raises(ConfigurationInvalid, match=named):
        check_float8(torch.device("cuda"), dtype)


def test_ada_and_newer_cards_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 9))
    check_float8(torch.device("cuda"), torch.bfloat16)
    check_float8(CPU, torch.float32)
