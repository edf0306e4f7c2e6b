"""The Wan 2.2 T2V A14B runtime; no other package imports torch, diffusers, transformers, peft or accelerate."""
