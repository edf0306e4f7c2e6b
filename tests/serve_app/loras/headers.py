"""Headers of LoRA files without the files, and what the parser makes of them."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from serve_app.errors import LoraInvalid
from serve_app.loras.formats import LoraContents, SafetensorsHeader, TensorInfo, parse
from tests.serve_app.loras.files import TINY

Shapes = dict[str, tuple[int, ...]]

STEM = "diffusion_model.blocks.0.self_attn.q"
PAIR: Shapes = {f"{STEM}.lora_A.weight": (4, 24), f"{STEM}.lora_B.weight": (24, 4)}
LOKR: Shapes = {f"{STEM}.lokr_w1": (4, 3), f"{STEM}.lokr_w2_a": (6, 2), f"{STEM}.lokr_w2_b": (2, 8)}
PATCH = "diffusion_model.patch_embedding"
PATCH_PAIR: Shapes = {f"{PATCH}.lora_A.weight": (4, 16, 1, 2, 2), f"{PATCH}.lora_B.weight": (24, 4, 1, 1, 1)}


def header(
    shapes: Mapping[str, tuple[int, ...]], metadata: dict[str, str] | None = None, **dtypes: str
) -> SafetensorsHeader:
    tensors = {key: TensorInfo(dtypes.get(key, "BF16"), shape, 0, 0) for key, shape in shapes.items()}
    return SafetensorsHeader(tensors, metadata or {}, 8, 8)


def accept(
    shapes: Mapping[str, tuple[int, ...]], metadata: dict[str, str] | None = None, *, strict: bool = True
) -> LoraContents:
    return parse(header(shapes, metadata), TINY, "mine", strict=strict)


def refusal(
    shapes: Mapping[str, tuple[int, ...]], metadata: dict[str, str] | None = None, *, strict: bool = True
) -> dict[str, Any]:
    with pytest.raises(LoraInvalid) as caught:
        accept(shapes, metadata, strict=strict)
    assert caught.value.details["file"] == "mine"
    return caught.value.details


def without(shapes: Shapes, suffix: str) -> Shapes:
    return {key: shape for key, shape in shapes.items() if not key.endswith(suffix)}


def used_keys(contents: LoraContents) -> Counter[str]:
    return Counter(key for change in contents.changes() for key in change.keys)


HIGH = {key.replace("diffusion_model.", "diffusion_model.transformer_1."): shape for key, shape in PAIR.items()}
LOW = {key.replace("diffusion_model.", "diffusion_model.transformer_2."): shape for key, shape in PAIR.items()}
PIPELINE_HIGH = {key.replace("diffusion_model.", "transformer."): shape for key, shape in PAIR.items()}
PIPELINE_LOW = {key.replace("diffusion_model.", "transformer_2."): shape for key, shape in PAIR.items()}
