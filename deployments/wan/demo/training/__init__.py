"""Training of the demo checkpoint and its LoRA pairs from scratch: drawn videos, captions, small Wan models.

python -m deployments.wan.demo.training all --work build/demo --device cuda
"""
