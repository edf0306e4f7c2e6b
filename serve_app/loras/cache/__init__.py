"""Content-addressed LRU cache of downloaded LoRA files on a node's disk, shared by all processes of the node."""

from serve_app.loras.cache.lora_cache import CachedFile, DigestMismatch, Fill, LoraCache
from serve_app.loras.cache.partial import Partial

__all__ = ["CachedFile", "DigestMismatch", "Fill", "LoraCache", "Partial"]
