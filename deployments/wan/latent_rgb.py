"""Latent previews: a linear map from latents to colours, which costs a thousandth of decoding them.

Example:
    rgb = RgbMap.of(latent_rgb(base_model, card), device)
    frames = rgb.frames(predicted(scheduler, latents, before))  # uint8 [up to 8, height, width, 3]
    fitted(latents, video)  # by least squares, from latents and the pixels that they stand for

The maps of the real VAEs are in the model cards, with their source. A checkpoint with another VAE, like the demo, has
its own map in `vae/latent_rgb.json`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool3d, avg_pool2d

from deployments.pipeline import Frames
from serve_app.models.card import LatentRgb, ModelCard

OWN_MAP = Path("vae", "latent_rgb.json")
_MOST_FRAMES = 8
_MOST_PIXELS = 128  # of the longer side


@dataclass(frozen=True, slots=True)
class RgbMap:
    """A map as tensors: factors [channels, 3], bias [3]."""

    factors: Tensor
    bias: Tensor

    @classmethod
    def of(cls, rgb: LatentRgb, device: torch.device) -> Self:
        """Return the map on a device."""
        return cls(torch.tensor(rgb.factors, device=device), torch.tensor(rgb.bias, device=device))

    def colours(self, latents: Tensor) -> Tensor:
        """Return colours of -1..1 [..., 3] of normalised latents [..., channels]."""
        return latents.to(self.factors) @ self.factors + self.bias

    def frames(self, latents: Tensor) -> Frames:
        """Return small pictures of the first video in normalised latents [1, channels, frames, height, width]."""
        count = latents.shape[2]
        shown = min(count, _MOST_FRAMES)
        some = latents[0, :, [number * count // shown for number in range(shown)]].transpose(0, 1)
        shrink = -(-max(some.shape[2:]) // _MOST_PIXELS)
        if shrink > 1:
            some = avg_pool2d(some, shrink, ceil_mode=True)
        colours = self.colours(some.permute(0, 2, 3, 1))
        pixels: Frames = ((colours.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu().numpy()
        return pixels


def latent_rgb(base_model: str, card: ModelCard) -> LatentRgb | None:
    """Return the map for the VAE of a checkpoint, from its folder or the card; None if neither has one.

    Raises:
        ValidationError: the checkpoint's own map is malformed.
    """
    own = Path(base_model) / OWN_MAP
    return LatentRgb.model_validate_json(own.read_text()) if own.is_file() else card.latents.rgb


def fitted(latents: Tensor, video: Tensor) -> LatentRgb:
    """Return the map that fits best, by least squares.

    Args:
        latents: normalised, [n, channels, frames, height, width].
        video: the pixels that they stand for, of -1..1, [n, 3, frames, height, width] of the video. Each cell is
            compared with the mean of its pixels.
    """
    cells = latents.float().movedim(1, -1).flatten(0, -2)
    ones = torch.ones_like(cells[:, :1])
    wanted = cell_means(latents, video).movedim(1, -1).flatten(0, -2)
    solution = torch.linalg.lstsq(torch.cat([cells, ones], dim=1), wanted).solution
    rows = [tuple(round(value, 5) for value in row) for row in solution.tolist()]
    return LatentRgb.model_validate({"factors": rows[:-1], "bias": rows[-1]})


def cell_means(latents: Tensor, video: Tensor) -> Tensor:
    """Return the mean colour of the pixels of each cell, [n, 3, frames, height, width] of the latents."""
    frames, height, width = latents.shape[2:]
    return adaptive_avg_pool3d(video.float(), (frames, height, width))


def predicted(scheduler: Any, latents: Tensor, before: Tensor | None) -> Tensor | None:
    """Return the final latents that the last step predicts; None if the scheduler does not give them.

    Latents in the middle of denoising are mostly noise. UniPC keeps its predictions. Euler's steps follow straight
    lines of the flow, x = (1 - s) video + s noise, so the end follows from the latents before and after a step.
    """
    kept = getattr(scheduler, "model_outputs", None)
    if kept:
        return cast("Tensor | None", kept[-1])
    if before is None:
        return None
    start, end = scheduler.sigmas[scheduler.step_index - 1 : scheduler.step_index + 1].tolist()
    video: Tensor = latents - (latents - before) * (end / (end - start))
    return video
