"""Prompt embeddings in an LRU cache: a repeated text, such as the negative prompt, is not encoded again."""

from typing import Any

import torch
from cachetools import LRUCache
from diffusers.pipelines.wan.pipeline_wan import prompt_clean

from serve_app.results import CacheUse
from serve_app.spec import RenderSpec

_MAX_TOKENS = 512  # what WanPipeline encodes to when it is called; its `encode_prompt` alone has another default
_QUOTED = 40  # characters on either side of where a text was cut
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

    def use(self, spec: RenderSpec) -> CacheUse:
        """Return how many of the spec's texts are kept now, and how many `arguments` would have to encode."""
        texts = {spec.prompt, spec.negative_prompt} if spec.guidance_scale > 1 else {spec.prompt}
        hits = sum(text in self._embeddings for text in texts)
        return CacheUse(hits=hits, misses=len(texts) - hits)

    def warnings(self, spec: RenderSpec) -> list[str]:
        """Return where the spec's texts were cut: the text encoder takes 512 tokens, the last of which is its end."""
        texts = {"prompt": spec.prompt}
        if spec.guidance_scale > 1:
            texts["negative prompt"] = spec.negative_prompt
        return [warning for name, text in texts.items() for warning in self._cut(name, text, spec.trigger_word)]

    def _cut(self, name: str, text: str, trigger_word: str | None) -> list[str]:
        cleaned = prompt_clean(text)  # as the pipeline cleans it
        if len(cleaned.encode()) < _MAX_TOKENS:  # a token is one byte at least
            return []
        tokens = self._pipe.tokenizer(cleaned, return_offsets_mapping=True, verbose=False)
        if len(tokens.input_ids) <= _MAX_TOKENS:
            return []
        at = tokens.offset_mapping[_MAX_TOKENS - 1][0]
        kept, lost = cleaned[:at], cleaned[at:]
        word = prompt_clean(trigger_word) if name == "prompt" and trigger_word else ""
        fell_off = ""
        if word and word in cleaned and word not in kept:
            fell_off = f"; the trigger word {word[:_QUOTED]!r} is in the part that was cut"
        return [
            f"the {name} is longer than {_MAX_TOKENS} tokens and was cut after {kept[-_QUOTED:]!r}; "
            f"{lost[:_QUOTED]!r} and what follows was not read{fell_off}"
        ]

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
