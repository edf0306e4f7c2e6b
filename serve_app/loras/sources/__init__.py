"""Sources of LoRA files: `lora_root`, web servers, the Hugging Face Hub, object stores."""

from serve_app.loras.sources.base import Located, SourcePolicy, is_remote
from serve_app.loras.sources.sources import LoraSources
from serve_app.loras.sources.wording import shown

__all__ = ["Located", "LoraSources", "SourcePolicy", "is_remote", "shown"]
