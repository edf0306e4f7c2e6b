"""A tiny checkpoint and a LoRA pair with random weights, so that the service runs without a GPU or a download."""

from pathlib import Path

from deployments.wan.demo.checkpoint import DemoCheckpoint, ensure_demo_checkpoint
from deployments.wan.demo.lora import ensure_demo_loras

__all__ = ["DemoCheckpoint", "build_demo", "ensure_demo_checkpoint", "ensure_demo_loras"]


def build_demo(directory: Path, lora_root: Path) -> tuple[str, str]:
    """Build the checkpoint in `directory` and its LoRA pair where they are missing; its base and expert directories."""
    checkpoint = ensure_demo_checkpoint(directory)
    ensure_demo_loras(lora_root)
    return str(checkpoint.base), str(checkpoint.transformers)
