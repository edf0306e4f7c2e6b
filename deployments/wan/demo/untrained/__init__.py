"""A tiny checkpoint and a LoRA pair with random weights, for tests that need many, or that compare bits."""

from deployments.wan.demo.untrained.checkpoint import DemoCheckpoint, ensure_demo_checkpoint
from deployments.wan.demo.untrained.lora import ensure_demo_loras

__all__ = ["DemoCheckpoint", "ensure_demo_checkpoint", "ensure_demo_loras"]
