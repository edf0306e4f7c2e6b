"""VAEs with random weights, in the sizes of Wan 2.1's or of Wan 2.2's, as the latents of a model's card ask for.

Sizes are those of the `config.json` of each; means and deviations of the latents are left at 0 and 1 for the latter, as
they change no time.
"""

from typing import Any

import torch
from diffusers import AutoencoderKLWan

from serve_app.models.card import ModelCard

_TINY = {"base_dim": 4, "num_res_blocks": 1}
_TINY_DECODER = {"decoder_base_dim": 6}  # of Wan 2.2's


def random_vae(card: ModelCard, device: torch.device, dtype: torch.dtype) -> AutoencoderKLWan:
    """Return one on `device`; on a CPU, a tiny one."""
    sizes = _sizes(card)
    if device.type == "cpu":
        sizes |= _TINY | (_TINY_DECODER if "decoder_base_dim" in sizes else {})
    with device:
        return AutoencoderKLWan(**sizes).to(dtype).eval()


def _sizes(card: ModelCard) -> dict[str, Any]:
    channels = card.latents.channels
    if card.latents.stride.rows == 8:
        return {"z_dim": channels}  # the class's defaults are those of Wan 2.1
    return {
        "base_dim": 160,
        "decoder_base_dim": 256,
        "z_dim": channels,
        "is_residual": True,
        "patch_size": 2,
        "in_channels": 12,
        "out_channels": 12,
        "scale_factor_spatial": card.latents.stride.rows,
        "latents_mean": [0.0] * channels,
        "latents_std": [1.0] * channels,
    }
