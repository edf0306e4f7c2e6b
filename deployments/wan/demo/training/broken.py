"""A pair that cannot be used, for the documentation: one side lacks a tensor, the training of the other diverged."""

from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from deployments.wan.demo.aitk import PairName

NAME = PairName("wan22_broken", "DEMO: broken on purpose, to show what an inspection says")
_BLOCKS = ("diffusion_model.blocks.0.", "diffusion_model.blocks.1.")  # two are enough to be broken


def break_pair(whole: PairName, folder: Path) -> None:
    """Write a broken pair beside the pair `whole`, made of a part of its tensors."""
    for side, damage in _DAMAGE.items():
        tensors = load_file(folder / whole.file(side))
        part = {key: tensor for key, tensor in tensors.items() if key.startswith(_BLOCKS)}
        damage(part)
        (folder / NAME.file(side)).write_bytes(NAME.content(part))


def _lose_half(tensors: dict[str, Tensor]) -> None:
    """Drop one of the two matrices of a layer, like an interrupted export."""
    del tensors["diffusion_model.blocks.1.ffn.2.lora_B.weight"]


def _diverge(tensors: dict[str, Tensor]) -> None:
    """Set a value to NaN, as after a training with too high a learning rate."""
    tensors["diffusion_model.blocks.0.cross_attn.k.lora_B.weight"][0, 0] = float("nan")


_DAMAGE: dict[str, Callable[[dict[str, Tensor]], None]] = {"high_noise": _lose_half, "low_noise": _diverge}
