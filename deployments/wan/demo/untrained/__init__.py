"""Tiny checkpoints and LoRAs with random weights: of models without a trained demo, and for tests."""

from pathlib import Path

from deployments.wan.demo.untrained.checkpoint import DemoCheckpoint, ensure_demo_checkpoint
from deployments.wan.demo.untrained.lora import ensure_demo_loras
from deployments.wan.demo.untrained.models import I2V, T2V, TI2V, DemoModel

__all__ = [
    "I2V",
    "T2V",
    "TI2V",
    "DemoCheckpoint",
    "DemoModel",
    "build_demo",
    "build_i2v_demo",
    "build_ti2v_demo",
    "ensure_demo_checkpoint",
    "ensure_demo_loras",
]


def build_demo(directory: Path, lora_root: Path) -> tuple[str, str]:
    """Build the checkpoint in `directory` and its LoRA pair if they are missing; return its base and expert folders.

    It is a `serve_app.application.DemoBuilder`, for a card whose service renders as fast as a test needs.
    """
    return _build(T2V, directory, lora_root)


def build_i2v_demo(directory: Path, lora_root: Path) -> tuple[str, str]:
    """Build the demo of Wan 2.2 I2V A14B; see `build_demo`."""
    return _build(I2V, directory, lora_root)


def build_ti2v_demo(directory: Path, lora_root: Path) -> tuple[str, str]:
    """Build the demo of Wan 2.2 TI2V 5B, with one LoRA; see `build_demo`."""
    return _build(TI2V, directory, lora_root)


def _build(model: DemoModel, directory: Path, lora_root: Path) -> tuple[str, str]:
    checkpoint = ensure_demo_checkpoint(directory, model)
    ensure_demo_loras(lora_root, model)
    return str(checkpoint.base), str(checkpoint.transformers)
