"""LoRA pairs: low-rank adapters trained on the experts, written as AI Toolkit writes them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
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
        self.strength: Tensor | float = 1.0  # of a whole batch, or [n, 1, 1]

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output with the change added."""
        changed: Tensor = self.base(x) + self.strength * self.up(self.down(x))
        return changed


def add_lora(expert: Any, rank: int) -> None:
    """Freeze `expert` and put an adapter that changes nothing yet on the linear layers of its blocks."""
    expert.requires_grad_(False)
    for block in expert.blocks:
        for layer in _LAYERS:
            parent, _, name = layer.rpartition(".")
            setattr(block.get_submodule(parent), name, LoraLinear(block.get_submodule(layer), rank))


def set_strength(expert: Any, strength: Tensor) -> None:
    """Multiply what the adapters of `expert` add, [n, 1, 1]: one strength for each example."""
    for module in expert.modules():
        if isinstance(module, LoraLinear):
            module.strength = strength


def share_lora(expert: Any, other: Any) -> None:
    """Put the adapters of `expert` on the frozen layers of `other` too: one change, learnt on both."""
    add_lora(other, rank=1)
    for name, module in expert.named_modules():
        if isinstance(module, LoraLinear):
            shared = other.get_submodule(name)
            shared.down, shared.up = module.down, module.up


def read_lora(expert: Any, pair: PairName, side: str, folder: Path) -> None:
    """Set the adapters of `expert` to what `write_lora` wrote."""
    tensors = load_file(folder / pair.file(side))
    with torch.no_grad():
        for linear, key in _tensors(expert):
            linear.weight.copy_(tensors[key])


def merge_lora(expert: Any, pair: PairName, side: str, folder: Path) -> None:
    """Add what `write_lora` wrote to the weights of an `expert` without adapters."""
    tensors = load_file(folder / pair.file(side))
    with torch.no_grad():
        for number, block in enumerate(expert.blocks):
            for layer, original in _LAYERS.items():
                down, up = (tensors[_key(number, original, half)].float() for half in ("lora_A", "lora_B"))
                block.get_submodule(layer).weight += (up @ down).to(expert.device)


def write_lora(expert: Any, pair: PairName, side: str, folder: Path) -> Path:
    """Write the adapters of `expert` to `folder`."""
    tensors = {key: linear.weight.detach().to("cpu", torch.float16).contiguous() for linear, key in _tensors(expert)}
    path = folder / pair.file(side)
    folder.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pair.content(tensors))
    return path


def _tensors(expert: Any) -> Iterator[tuple[nn.Linear, str]]:
    """Yield the two matrices of each adapter, and the names of their weights in AI Toolkit's files."""
    for number, block in enumerate(expert.blocks):
        for layer, original in _LAYERS.items():
            lora = block.get_submodule(layer)
            yield lora.down, _key(number, original, "lora_A")
            yield lora.up, _key(number, original, "lora_B")


def _key(block: int, layer: str, half: str) -> str:
    return f"diffusion_model.blocks.{block}.{layer}.{half}.weight"
