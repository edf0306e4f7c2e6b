"""A tiny checkpoint and a LoRA pair with random weights, for tests that need many, or that compare bits."""

from pathlib import Path

from deployments.wan.demo.untrained.checkpoint import DemoCheckpoint, ensure_demo_checkpoint
from deployments.wan.demo.untrained.lora import ensure_demo_loras

__all__ = ["DemoCheckpoint", "build_demo", "ensure_demo_checkpoint", "ensure_demo_loras"]


def build_demo(directory: Path, lora_root: Path) -> tuple[str, str]:
    """Build the checkpoint in `directory` and its LoRA pair where they are missing; return its base and expert folders.

    It is a `serve_app.application.DemoBuilder`, for a card whose service renders as fast as a test needs.
    """
    checkpoint = ensure_demo_checkpoint(directory)
    ensure_demo_loras(lora_root)
    return str(checkpoint.base), str(checkpoint.transformers)
