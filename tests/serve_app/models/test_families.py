"""Families of parameters: each parameter has one, and each family has some."""

import pytest

from serve_app.models.architecture import WanArchitecture
from serve_app.models.card import load_card
from serve_app.models.families import Family, block, family, ranges

A14B: WanArchitecture = load_card("wan22_14b_t2v").architecture


def test_every_part_of_the_model_has_parameters_and_every_parameter_a_part() -> None:
    found = {name: family(name) for name in A14B.parameters()}
    assert set(found.values()) == set(Family)
    assert found["blocks.0.attn1.to_q.weight"] is Family.SELF_ATTENTION
    assert found["blocks.0.attn2.to_out.0.bias"] is Family.CROSS_ATTENTION
    assert found["blocks.0.attn2.norm_q.weight"] is Family.NORMS
    assert found["scale_shift_table"] is Family.MODULATION
    assert found["patch_embedding.weight"] is Family.EMBEDDINGS


def test_the_block_of_a_parameter() -> None:
    assert {block(name) for name in A14B.parameters()} == {None, *range(40)}
    assert block("blocks.39.ffn.net.2.weight") == 39
    assert block("proj_out.weight") is None


@pytest.mark.parametrize(
    ("numbers", "text"), [(set(), ""), ({3}, "3"), ({0, 1, 2, 3, 7}, "0-3, 7"), (set(range(40)), "0-39")]
)
def test_ranges(numbers: set[int], text: str) -> None:
    assert ranges(numbers) == text
