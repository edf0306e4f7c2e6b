"""Downloaded LoRA files, kept on a node for all its processes."""

from serve_app.loras.cache.disk import Partial
from serve_app.loras.cache.lora_cache import CachedFile, DigestMismatch, Fill, LoraCache

__all__ = ["CachedFile", "DigestMismatch", "Fill", "LoraCache", "Partial"]
