"""A tiny checkpoint and a LoRA pair with random weights, so that the service runs without a GPU or a download."""

from deployments.wan.demo.checkpoint import DemoCheckpoint, ensure_demo_checkpoint
from deployments.wan.demo.lora import ensure_demo_loras

__all__ = ["DemoCheckpoint", "ensure_demo_checkpoint", "ensure_demo_loras"]
