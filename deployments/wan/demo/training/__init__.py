"""Train the demo checkpoint and its LoRA pairs from nothing: drawn videos, captions, small models of Wan's classes.

python -m deployments.wan.demo.training all --work build/demo --device cuda
"""
