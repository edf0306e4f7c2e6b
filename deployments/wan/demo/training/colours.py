"""The map of the demo's latents to colours, for previews: fitted to drawn videos by least squares.

    python -m deployments.wan.demo.training.colours deployments/wan/demo/trained/checkpoint

writes it into a checkpoint that lacks it.
"""

import argparse
from pathlib import Path
from random import Random
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from deployments.wan.demo.training.autoencoder import latents_of
from deployments.wan.demo.training.drawing import drawings
from deployments.wan.demo.training.scenes import Style, random_scene
from deployments.wan.latent_rgb import OWN_MAP, fitted

SCENES = 256
_SEED = 18


def examples(vae: Any, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return normalised latents of drawn scenes of every style, and their videos [n, 3, frames, height, width]."""
    random = Random(seed)  # noqa: S311 - data, no secret
    device = next(vae.parameters()).device
    scenes = drawings([random_scene(random).styled(random.choice(list(Style))) for _ in range(count)], device)
    with torch.no_grad():
        return latents_of(vae, scenes).float(), scenes.draw(torch.arange(count, device=device))[0]


def write_map(checkpoint: Path, scenes: int = SCENES) -> None:
    """Fit the map for the VAE of a checkpoint to that many videos and write it beside its weights."""
    vae = AutoencoderKLWan.from_pretrained(checkpoint / "vae").float()
    (checkpoint / OWN_MAP).write_text(fitted(*examples(vae, scenes, _SEED)).model_dump_json() + "\n")


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    write_map(parser.parse_args().checkpoint)


if __name__ == "__main__":
    _main()
