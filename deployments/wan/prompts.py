"""Prompt embeddings in an LRU cache: a text that comes again, as the negative prompt mostly does, costs no encoding."""

from typing import Any

import torch
from cachetools import LRUCache

from serve_app.spec import RenderSpec

_MAX_TOKENS = 512  # what WanPipeline encodes to when it is called; its `encode_prompt` alone has another default
_CAPACITY_BYTES = 256 * 2**20  # 64 embeddings of the real text encoder in bfloat16


class PromptEmbeddings:
    """Embeddings of one pipeline's text encoder, bit for bit what the pipeline makes of the same text in a call.

    They are kept in host memory, whatever the offload mode: copying 4 MB to a GPU takes about a millisecond.
    """

    def __init__(self, pipe: Any, device: torch.device, capacity_bytes: int = _CAPACITY_BYTES) -> None:
        """Encode with `pipe`, for experts that compute on `device`; keep up to `capacity_bytes` of embeddings."""
        self._pipe = pipe
        self._device = device
        self._embeddings: LRUCache[str, torch.Tensor] = LRUCache(capacity_bytes, lambda embedding: embedding.nbytes)

    def arguments(self, spec: RenderSpec) -> dict[str, torch.Tensor]:
        """Return the pipeline's arguments in place of the spec's prompts."""
        arguments = {"prompt_embeds": self.get(spec.prompt)}
        if spec.guidance_scale > 1:  # the pipeline's own rule; below, it looks at no negative prompt
            arguments["negative_prompt_embeds"] = self.get(spec.negative_prompt)
        return arguments

    def get(self, text: str) -> torch.Tensor:
        """Return the embedding of `text` on the device, to be passed to the pipeline and not to be changed."""
        known = self._embeddings.get(text)
        if known is not None:
            return known.to(self._device)
        embedding = self._encode(text)
        if embedding.nbytes <= self._embeddings.maxsize:
            self._embeddings[text] = embedding.cpu()
        return embedding

    @torch.no_grad()
    def _encode(self, text: str) -> torch.Tensor:
        # Alone, as the pipeline encodes it: in a batch with the negative prompt, its numbers could differ.
        embedding: torch.Tensor
        embedding, _ = self._pipe.encode_prompt(
            prompt=text, do_classifier_free_guidance=False, max_sequence_length=_MAX_TOKENS, device=self._device
        )
        return embedding
