"""`diff_m` of distilled LoRAs is the difference of a modulation table, whatever stands before its owner's name."""

import pytest

from serve_app.loras.formats.changes import Difference
from serve_app.spec import Expert
from tests.serve_app.loras.files import TINY
from tests.serve_app.loras.headers import accept, refusal

PREFIXES = [
    "",
    "diffusion_model.",
    "model.diffusion_model.",
    "transformer.",
    "lora_unet_",
    "lora_unet__",
    "module.dit.",
]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("ending", ["diff_m", "modulation.diff", "modulation.diff_m"])
def test_of_a_block_and_of_the_head(prefix: str, ending: str) -> None:
    for number in range(TINY.num_layers):
        block = f"blocks_{number}" if prefix.endswith("_") else f"blocks.{number}"
        key = f"{prefix}{block}.{ending}"
        change = Difference(f"blocks.{number}.scale_shift_table", key)
        assert accept({key: (1, 6, TINY.dim)}).parts == {None: (change,)}
    key = f"{prefix}head.{ending}"
    assert accept({key: (1, 2, TINY.dim)}).parts == {None: (Difference("scale_shift_table", key),)}


def test_of_one_expert() -> None:
    key = "low_noise_model.blocks.0.diff_m"
    assert list(accept({key: (1, 6, TINY.dim)}).parts) == [Expert.LOW]


@pytest.mark.parametrize("shape", [(6, TINY.dim), (1, 2, TINY.dim), (1, 6, TINY.dim + 1), (TINY.dim,), ()])
def test_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    assert "wrong shape" in refusal({"diffusion_model.blocks.0.diff_m": shape})["reason"]


def test_twice_is_refused() -> None:
    table = (1, 6, TINY.dim)
    details = refusal({"blocks.0.diff_m": table, "blocks.0.modulation.diff": table})
    assert "several of its tensors mean the same part" in details["reason"]


@pytest.mark.parametrize(
    "key", ["diff_m", "blocks.diff_m", f"blocks.{TINY.num_layers}.diff_m", "blocks.0.ffn.0.diff_m"]
)
def test_of_nothing_that_has_a_table_has_no_place(key: str) -> None:
    assert "no place" in refusal({key: (1, 6, TINY.dim)})["reason"]
