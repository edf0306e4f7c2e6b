"""The autoencoder: AutoencoderKLWan trained on drawn videos, and its latents' mean and standard deviation measured."""

from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from types import MethodType
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor, nn

from deployments.wan.demo.training.drawing import Drawings, drawings
from deployments.wan.demo.training.scenes import Style, random_scene
from deployments.wan.demo.training.steps import Budget, train

_CONFIG: dict[str, Any] = {
    "base_dim": 8,
    "z_dim": 16,
    "dim_mult": [1, 2, 4, 4],
    "num_res_blocks": 1,
    "temperal_downsample": [False, True, True],
}
_SCENES = 20_000
_SHAPE_WEIGHT = 8.0  # of a pixel of the shape, beside 1 for the background
_GRADIENT_WEIGHT = 0.5
_KL_WEIGHT = 1e-4  # at 5e-4 some channels hold more noise than signal


def new_autoencoder() -> Any:
    """Return an untrained autoencoder."""
    return AutoencoderKLWan(**_CONFIG)


def train_autoencoder(vae: Any, budget: Budget, seed: int, batch: int = 16, measured: int = 512) -> int:
    """Train `vae` on scenes of every style, write its latent statistics into its config; return the steps made.

    The statistics are those of `measured` videos, a multiple of `batch`.
    """
    device = next(vae.parameters()).device
    random = Random(seed)  # noqa: S311 - data, no secret
    styles = [Style.PLAIN, Style.PLAIN, Style.GLOW, Style.DAWN]
    scenes = drawings([random_scene(random).styled(random.choice(styles)) for _ in range(_SCENES)], device)
    _channels_last(vae)

    def loss() -> Tensor:
        video, covered = scenes.draw(torch.randint(len(scenes), (batch,), device=device))
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda", cache_enabled=False):
            mean, log_variance = _moments(vae, video)
            decoded = _decode(vae, mean + torch.randn_like(mean) * (0.5 * log_variance).exp())
        return _reconstruction_loss(decoded.float(), video, covered) + _KL_WEIGHT * _kl(mean, log_variance)

    with all_frames_at_once(vae):
        steps = train("autoencoder", vae.parameters(), loss, budget, rate=2e-3)
        _measure_latents(vae, scenes, measured, batch)
    return steps


def _channels_last(vae: Any) -> None:
    """Convert the convolutions' weights to the memory format that is fastest with cuDNN."""
    for module in vae.modules():
        if isinstance(module, nn.Conv3d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last_3d)
        elif isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def latents_of(vae: Any, scenes: Drawings, batch: int = 32) -> Tensor:
    """Return normalised latents [n, 16, 5, 16, 16] of every scene, in bfloat16."""
    device = next(vae.parameters()).device
    mean, std = (torch.tensor(values, device=device).view(1, -1, 1, 1, 1) for values in latent_statistics(vae))
    parts = []
    with all_frames_at_once(vae), torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        for chosen in torch.split(torch.arange(len(scenes), device=device), batch):
            latents, _ = _moments(vae, scenes.draw(chosen)[0])
            parts.append(((latents - mean) / std).bfloat16())
    return torch.cat(parts)


@torch.no_grad()
def videos_of(vae: Any, latents: Tensor) -> Tensor:
    """Decode normalised latents to videos [n, 3, 17, 128, 128] in about -1..1; the opposite of `latents_of`."""
    device = latents.device
    mean, std = (torch.tensor(values, device=device).view(1, -1, 1, 1, 1) for values in latent_statistics(vae))
    with all_frames_at_once(vae), torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        return _decode(vae, latents * std + mean).float()


def latent_statistics(vae: Any) -> tuple[list[float], list[float]]:
    """Return the mean and the standard deviation of each latent channel, by which the pipeline scales latents."""
    return vae.config.latents_mean, vae.config.latents_std


def _moments(vae: Any, video: Tensor) -> tuple[Tensor, Tensor]:
    mean, log_variance = vae.quant_conv(vae.encoder(video)).float().chunk(2, dim=1)
    return mean, log_variance.clamp(-20, 10)


def _decode(vae: Any, latents: Tensor) -> Tensor:
    decoded: Tensor = vae.decoder(vae.post_quant_conv(latents))
    return decoded


def _reconstruction_loss(decoded: Tensor, video: Tensor, covered: Tensor) -> Tensor:
    """Return the mean absolute error, weighted to the shape, and that of the differences between neighbours."""
    error = decoded - video
    weight = 1 + _SHAPE_WEIGHT * (covered > 0)
    gradient = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return (error.abs() * weight).mean() + _GRADIENT_WEIGHT * gradient


def _kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()


@torch.no_grad()
def _measure_latents(vae: Any, scenes: Drawings, count: int, batch: int) -> None:
    parts = [
        _moments(vae, scenes.draw(chosen)[0])[0]
        for chosen in torch.split(torch.arange(count, device=scenes.start.device), batch)
    ]
    channels = torch.cat(parts).transpose(0, 1).flatten(1)
    vae.register_to_config(latents_mean=channels.mean(1).tolist(), latents_std=channels.std(1).tolist())


@contextmanager
def all_frames_at_once(vae: Any) -> Iterator[None]:
    """Make the encoder and decoder process whole videos in the block: the same result as frame by frame, in one pass.

    The class itself processes frame by frame with a cache. Without the cache it skips the convolutions in time.
    """
    ways = {"downsample3d": _downsample, "upsample3d": _upsample}
    changed = [
        module for module in vae.modules() if getattr(module, "mode", None) in ways and hasattr(module, "time_conv")
    ]
    for module in changed:
        module.forward = MethodType(ways[module.mode], module)
    try:
        yield
    finally:
        for module in changed:
            del module.forward


def _downsample(self: Any, x: Tensor, feat_cache: None = None, feat_idx: object = None) -> Tensor:
    x = _in_space(self, x)
    if x.shape[2] == 1:
        return x
    return torch.cat([x[:, :, :1], self.time_conv(x)], dim=2)


def _upsample(self: Any, x: Tensor, feat_cache: None = None, feat_idx: object = None) -> Tensor:
    if x.shape[2] > 1:
        pairs = self.time_conv(x[:, :, 1:]).unflatten(1, (2, -1))  # [n, 2, channels, frames, height, width]
        x = torch.cat([x[:, :, :1], pairs.permute(0, 2, 3, 1, 4, 5).flatten(2, 3)], dim=2)
    return _in_space(self, x)


def _in_space(self: Any, x: Tensor) -> Tensor:
    frames = x.shape[2]
    images: Tensor = self.resample(x.transpose(1, 2).flatten(0, 1))
    return torch.unflatten(images, 0, (-1, frames)).transpose(1, 2)
