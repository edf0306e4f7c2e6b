"""The members of Wan 2.2 whose demo can be built: their real architectures, made tiny."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TEXT_WIDTH = 32


@dataclass(frozen=True)
class DemoModel:
    """What a demo checkpoint of one model is made of, and how AI Toolkit names its LoRAs."""

    title: str
    lora: str  # name of the demo LoRA
    lora_base: str  # `ss_base_model_version` in its metadata
    sides: tuple[str, ...]  # of its files; ("",) for one expert
    experts: tuple[str, ...]  # component names
    expert: Mapping[str, Any]  # arguments of WanTransformer3DModel
    vae: Mapping[str, Any]  # arguments of AutoencoderKLWan
    shift: float  # of the scheduler
    pipeline: Mapping[str, Any]  # further arguments of WanPipeline

    @property
    def width(self) -> int:
        """Return the width of the experts' blocks."""
        width: int = self.expert["num_attention_heads"] * self.expert["attention_head_dim"]
        return width


_EXPERT = {
    "num_layers": 2,
    "num_attention_heads": 4,
    "attention_head_dim": 24,
    "ffn_dim": 192,
    "text_dim": TEXT_WIDTH,
    "freq_dim": 256,
    "in_channels": 16,
    "out_channels": 16,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
}

# Latent statistics stay the class's defaults, which are those of Wan 2.1's VAE.
_VAE = {
    "base_dim": 4,
    "z_dim": 16,
    "dim_mult": [1, 2, 4, 4],
    "num_res_blocks": 1,
    "temperal_downsample": [False, True, True],
}

_CHANNELS_5B = 48
_VAE_5B = _VAE | {
    "z_dim": _CHANNELS_5B,
    "decoder_base_dim": 6,
    "is_residual": True,
    "patch_size": 2,
    "in_channels": 12,
    "out_channels": 12,
    "scale_factor_spatial": 16,
    "latents_mean": [0.0] * _CHANNELS_5B,
    "latents_std": [1.0] * _CHANNELS_5B,
}

_PAIR = ("transformer", "transformer_2")
_SIDES = ("high_noise", "low_noise")

T2V = DemoModel(
    title="Wan 2.2 T2V A14B",
    lora="wan22_demo",
    lora_base="wan_2.2_14b",
    sides=_SIDES,
    experts=_PAIR,
    expert=_EXPERT,
    vae=_VAE,
    shift=3.0,
    pipeline={"boundary_ratio": 0.875},
)
I2V = DemoModel(
    title="Wan 2.2 I2V A14B",
    lora="wan22_i2v_demo",
    lora_base="wan_2.2_14b",
    sides=_SIDES,
    experts=_PAIR,
    expert=_EXPERT | {"in_channels": 36},
    vae=_VAE,
    shift=3.0,
    pipeline={"boundary_ratio": 0.9},
)
TI2V = DemoModel(
    title="Wan 2.2 TI2V 5B",
    lora="wan22_5b_demo",
    lora_base="wan_2.2_5b",
    sides=("",),
    experts=("transformer",),
    # The weights need an inner width above 4 x 48, and heads of 48 at least.
    expert=_EXPERT | {"attention_head_dim": 64, "ffn_dim": 256, "in_channels": 48, "out_channels": 48},
    vae=_VAE_5B,
    shift=5.0,
    pipeline={"boundary_ratio": None, "expand_timesteps": True},
)
