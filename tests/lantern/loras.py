"""LoRA files for the made-up model."""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from serve_app.models.card import load_card
from tests.lantern import CARD


def save_lora(path: Path, light: float = 0.5, rank: int = 2) -> Path:
    """Write a LoRA of every linear layer of a block, all of whose numbers are `light`; multiples of 1/8 are exact."""
    tensors = {}
    for module in load_card(str(CARD)).architecture.modules:
        if module.is_linear and module.name.startswith("blocks."):
            out, into = module.shape
            name = f"diffusion_model.{module.original}"
            tensors[f"{name}.lora_A.weight"] = np.full((rank, into), light, np.float16)
            tensors[f"{name}.lora_B.weight"] = np.full((out, rank), light, np.float16)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata={"format": "pt"})
    return path
