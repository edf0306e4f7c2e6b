"""The demo LoRAs: random weights for the demo checkpoints, in files such as AI Toolkit saves."""

import tempfile
from pathlib import Path

import torch

from deployments.wan.demo.aitk import PairName
from deployments.wan.demo.untrained.models import T2V, DemoModel

_NOTE = "DEMO: random weights in AI Toolkit's format, not trained; only for the demo checkpoint"
_RANK = 16
_SEEDS = {"high_noise": 11, "low_noise": 12, "": 13}

_STRENGTH = 0.06  # of the change at multiplier 1, against the weights that it is added to


def ensure_demo_loras(lora_root: Path, model: DemoModel = T2V) -> tuple[Path, ...]:
    """Return the demo files of `model` under `lora_root/demo`, high noise first; write them if they are missing.

    The bytes are reproducible with the same library versions. Several processes may call it at the same time.
    """
    folder = lora_root / "demo"
    folder.mkdir(parents=True, exist_ok=True)
    name = PairName(model.lora, _NOTE, base_version=model.lora_base)
    paths = tuple(folder / name.file(side) for side in model.sides)
    for path, side in zip(paths, model.sides, strict=True):
        if not path.is_file():
            _write(path, name.content(_tensors(model, _SEEDS[side])))
    return paths


def _write(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(content)
    Path(file.name).chmod(0o644)  # temporary files are private; this one is read by every replica
    Path(file.name).replace(path)


def _tensors(model: DemoModel, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for layer, (inputs, outputs) in _layers(model).items():
        down = torch.randn(_RANK, inputs, generator=generator) / inputs**0.5
        up = torch.randn(outputs, _RANK, generator=generator) * _STRENGTH / _RANK**0.5
        tensors[f"diffusion_model.{layer}.lora_A.weight"] = down.bfloat16()
        tensors[f"diffusion_model.{layer}.lora_B.weight"] = up.bfloat16()
    return tensors


def _layers(model: DemoModel) -> dict[str, tuple[int, int]]:
    """Return the linear layers that AI Toolkit trains, by their original names, with inputs and outputs."""
    width, hidden = model.width, model.expert["ffn_dim"]
    in_block = {f"{kind}.{part}": (width, width) for kind in ("self_attn", "cross_attn") for part in "qkvo"}
    in_block |= {"ffn.0": (width, hidden), "ffn.2": (hidden, width)}
    blocks = range(model.expert["num_layers"])
    return {f"blocks.{block}.{layer}": sizes for block in blocks for layer, sizes in in_block.items()}
