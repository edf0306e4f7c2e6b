"""LoRA pairs: low-rank adapters trained on the experts, written as AI Toolkit writes them."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deployments.wan.demo.aitk import PairName

# The linear layers that AI Toolkit trains: the name in diffusers, the name in the original model.
_LAYERS = {
    f"{attention}.{part}": f"{name}.{part[3:4]}"
    for attention, name in (("attn1", "self_attn"), ("attn2", "cross_attn"))
    for part in ("to_q", "to_k", "to_v", "to_out.0")
} | {"ffn.net.0.proj": "ffn.0", "ffn.net.2": "ffn.2"}


class LoraLinear(nn.Module):
    """A frozen linear layer and the product of two small matrices beside it; alpha equals the rank."""

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        device = base.weight.device
        self.down = nn.Linear(base.in_features, rank, bias=False, device=device)
        self.up = nn.Linear(rank, base.out_features, bias=False, device=device)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output with the change added."""
        changed: Tensor = self.base(x) + self.up(self.down(x))
        return changed


def add_lora(expert: Any, rank: int) -> None:
    """Freeze `expert` and put an adapter that changes nothing yet on the linear layers of its blocks."""
    expert.requires_grad_(False)
    for block in expert.blocks:
        for layer in _LAYERS:
            parent, _, name = layer.rpartition(".")
            setattr(block.get_submodule(parent), name, LoraLinear(block.get_submodule(layer), rank))


def write_lora(expert: Any, pair: PairName, side: str, folder: Path) -> Path:
    """Write the adapters of `expert` to `folder`."""
    tensors = {}
    for number, block in enumerate(expert.blocks):
        for layer, original in _LAYERS.items():
            lora = block.get_submodule(layer)
            for key, linear in (("lora_A", lora.down), ("lora_B", lora.up)):
                weight = linear.weight.detach().to("cpu", torch.float16).contiguous()
                tensors[f"diffusion_model.blocks.{number}.{original}.{key}.weight"] = weight
    path = folder / pair.file(side)
    folder.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pair.content(tensors))
    return path
