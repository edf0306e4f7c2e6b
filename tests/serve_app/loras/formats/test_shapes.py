"""Headers only: tensors whose shapes fit neither the model nor each other."""

import pytest

from tests.serve_app.loras.headers import LOKR, PAIR, PATCH, PATCH_PAIR, STEM, Shapes, refusal, without

MISSHAPEN: list[tuple[str, Shapes, str, str]] = [
    ("another width", PAIR | {f"{STEM}.lora_A.weight": (4, 25)}, f"{STEM}.lora_A.weight", "expected [r, 24]"),
    ("too many dimensions", PAIR | {f"{STEM}.lora_A.weight": (4, 24, 1)}, f"{STEM}.lora_A.weight", "found [4, 24, 1]"),
    ("no dimensions", PAIR | {f"{STEM}.lora_A.weight": ()}, f"{STEM}.lora_A.weight", "found []"),
    (
        "rank 0",
        {f"{STEM}.lora_A.weight": (0, 24), f"{STEM}.lora_B.weight": (24, 0)},
        f"{STEM}.lora_A.weight",
        "at least 1",
    ),
    ("other rank", PAIR | {f"{STEM}.lora_B.weight": (24, 5)}, f"{STEM}.lora_B.weight", "expected [24, 4], found"),
    (
        "alpha of two",
        PAIR | {f"{STEM}.alpha": (2,)},
        f"{STEM}.alpha",
        "expected one number, as in [] or [1], found [2]",
    ),
    ("magnitude", PAIR | {f"{STEM}.magnitude": (25,)}, f"{STEM}.magnitude", "[24], [24, 1] or [1, 24], found [25]"),
    ("patch kernel", PATCH_PAIR | {f"{PATCH}.lora_A.weight": (4, 16, 1, 2, 3)}, f"{PATCH}.lora_A.weight", "16, 1, 2"),
    ("patch up", PATCH_PAIR | {f"{PATCH}.lora_B.weight": (24, 4)}, f"{PATCH}.lora_B.weight", "[24, 4, 1, 1, 1]"),
    ("difference", {f"{STEM}.diff": (24, 25)}, f"{STEM}.diff", "expected [24, 24]"),
    ("bias difference", {f"{STEM}.diff_b": (25,)}, f"{STEM}.diff_b", "expected [24]"),
    ("table", {"blocks.0.modulation.diff": (6, 24)}, "blocks.0.modulation.diff", "expected [1, 6, 24]"),
    ("kronecker", LOKR | {f"{STEM}.lokr_w1": (4, 4)}, f"{STEM}.lokr_w2_a", "two factors of [24, 24]"),
    ("factor's rank", LOKR | {f"{STEM}.lokr_w2_b": (3, 8)}, f"{STEM}.lokr_w2_b", "expected [2, n]"),
    ("factor of rank 0", LOKR | {f"{STEM}.lokr_w2_a": (6, 0)}, f"{STEM}.lokr_w2_a", "not empty"),
    ("factor of a convolution", LOKR | {f"{STEM}.lokr_w1": (4, 3, 1)}, f"{STEM}.lokr_w1", "a matrix"),
    (
        "factors of two ranks",
        without(LOKR, "w1") | {f"{STEM}.lokr_w1_a": (4, 1), f"{STEM}.lokr_w1_b": (1, 3)},
        f"{STEM}.lokr_w2_a",
        "rank of the first factor",
    ),
]


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    ("shapes", "key", "why"), [case[1:] for case in MISSHAPEN], ids=[case[0] for case in MISSHAPEN]
)
def test_a_tensor_that_does_not_fit_is_named_with_the_shape_that_would(
    shapes: Shapes, key: str, why: str, strict: bool
) -> None:
    details = refusal({"diffusion_model.blocks.1.ffn.0.diff_b": (48,)} | shapes, strict=strict)
    assert "wrong shape" in details["reason"]
    assert why in details["reason"]
    assert details["keys"] == [key]
