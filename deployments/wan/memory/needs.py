"""Activation memory: estimate what a render needs on the GPU besides weights, from its size and measured peaks.

Example:
    needs = Needs(card)
    needs.bytes(NeedKey.of(spec))                 # by the formula
    needs.bytes(NeedKey.of(spec), {key: 12e9})    # calibrated by the peak of a render of about that size
"""

import math
from collections.abc import Callable, Mapping

from serve_app.models.card import ModelCard
from serve_app.needs import NeedKey
from serve_app.spec import RenderSpec

_GIB = 2**30

# In tensors, full-size components of random weights in bfloat16 on an H200 (torch 2.11, diffusers 0.42.1). Decoding,
# from the peaks beside one expert and the VAE: 11.5 GiB at 1024x1024x41, 10.4 at 1280x720x81, 4.5 at 832x480x41.
_DECODE_PER_PIXEL = 11.2 * _GIB / 1024**2
_DECODE_PER_PIXEL_AND_FRAME = 0.0083 * _GIB / 1024**2
# One expert of 5,120 channels with a rank 32 LoRA: 5.2 GiB for the 45,056 tokens of 1024x1024x41.
_DENOISE_PER_TOKEN_AND_CHANNEL = 5.2 * _GIB / 45_056 / 5_120
_FIXED = _GIB // 8  # workspaces of cuBLAS and cuDNN, embeddings

# What the allocator keeps beside tensors: 16.0 GiB where 11.5 were in tensors, in the same run.
_KEPT = 16.0 / 11.5

_COMPARABLE = 4.0  # a peak says something about renders of a quarter to four times its size, by pixels x frames

_SQUARE = 4096  # pixels; to tell tokens for each pixel


class Needs:
    """Estimates for one model."""

    def __init__(self, card: ModelCard) -> None:
        self._card = card
        self._tokens_per_pixel = card.token_count(width=_SQUARE, height=_SQUARE, num_frames=1) / _SQUARE**2
        self._channels = card.architecture.dim

    def bytes(self, key: NeedKey, measured: Mapping[NeedKey, int] | None = None) -> int:
        """Return the estimate for renders of that key, with what the allocator keeps.

        The formula, times what the most similar measured peak was of the formula for its own size.
        """
        return int(_KEPT * self.in_tensors(key) * self._correction(key, measured or {}))

    def in_tensors(self, key: NeedKey) -> float:
        """Return the formula's bytes: denoising and decoding come one after the other, so the larger of the two."""
        latent_frames = (key.num_frames - 1) // self._card.latents.stride.frames + 1
        tokens = key.pixels * latent_frames * self._tokens_per_pixel
        decode = key.pixels * (_DECODE_PER_PIXEL + _DECODE_PER_PIXEL_AND_FRAME * key.num_frames)
        return _FIXED + max(decode, tokens * self._channels * _DENOISE_PER_TOKEN_AND_CHANNEL)

    def _correction(self, key: NeedKey, measured: Mapping[NeedKey, int]) -> float:
        def distance(other: NeedKey) -> tuple[bool, float]:
            return other.speed is not key.speed, abs(math.log(_extent(other) / _extent(key)))

        nearest = min(measured, key=distance, default=None)
        if nearest is None or distance(nearest)[1] > math.log(_COMPARABLE):
            return 1.0
        return measured[nearest] / self.in_tensors(nearest)


def largest_size(spec: RenderSpec, divisor: int, fits: Callable[[NeedKey], bool]) -> tuple[int, int] | None:
    """Return the largest width and height of the shape and length of `spec` that `fits`; None if none does.

    Both are multiples of `divisor`, and smaller than those of `spec`.
    """
    for width in range(spec.width - divisor, divisor - 1, -divisor):
        height = max(divisor, round(width * spec.height / spec.width / divisor) * divisor)
        if fits(NeedKey.of(spec.model_copy(update={"width": width, "height": height}))):
            return width, height
    return None


def _extent(key: NeedKey) -> float:
    return key.pixels * key.num_frames
