"""LoRA files as bytes, independent of the code under test."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from serve_app.models.architecture import WanArchitecture
from serve_app.models.card import load_card

CONFIG = {  # of a diffusers WanTransformer3DModel; the sizes are those of `tests.loras.model.TINY`
    "num_layers": 2,
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "ffn_dim": 48,
    "text_dim": 32,
    "freq_dim": 256,
    "in_channels": 16,
    "out_channels": 16,
    "patch_size": [1, 2, 2],
    "cross_attn_norm": True,
}
TINY = WanArchitecture.from_config(CONFIG)
CARD = load_card("wan22_14b_t2v").model_copy(update={"architecture": TINY})
LINEARS = {  # by their original names, those of the blocks
    module.original: module.shape for module in TINY.modules if module.is_linear and module.name.startswith("blocks.")
}
METADATA = {"format": "pt", "ss_base_model_version": "wan_2.2_14b"}

Tensors = dict[str, NDArray[Any]]


def pair(module: str, rank: int = 4, *, names: tuple[str, str] = ("lora_A", "lora_B")) -> Tensors:
    """Return both halves for a module of TINY, filled with small numbers."""
    out, wide = LINEARS[module]
    prefix = f"diffusion_model.{module}"
    return {
        f"{prefix}.{names[0]}.weight": np.full((rank, wide), 0.5, np.float16),
        f"{prefix}.{names[1]}.weight": np.full((out, rank), 0.25, np.float16),
    }


def full(rank: int = 4, *, names: tuple[str, str] = ("lora_A", "lora_B")) -> Tensors:
    """Return a LoRA of every linear layer of TINY, as AI Toolkit saves it."""
    return {key: value for module in LINEARS for key, value in pair(module, rank, names=names).items()}


def save(path: Path, tensors: Tensors, metadata: dict[str, str] = METADATA) -> Path:
    save_file(tensors, path, metadata=metadata)
    return path


def raw(header: Mapping[str, Any] | str | bytes, data: bytes = b"") -> bytes:
    """Return a safetensors file with exactly this header, right or wrong."""
    text = header if isinstance(header, bytes) else (header if isinstance(header, str) else json.dumps(header)).encode()
    return len(text).to_bytes(8, "little") + text + data


def typed(tensors: Mapping[str, tuple[str, list[int], bytes]]) -> bytes:
    """Return a file of tensors given as (dtype, shape, bytes): also dtypes that numpy lacks, such as BF16."""
    header, data = {}, b""
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    return raw(header, data)
