"""Configs of a Wan checkpoint's components (JSON): which entries each must have, and which values can be served.

Defaults are those of the classes in diffusers 0.42.1 and transformers 5.23. Entries that change nothing about the
weights are ignored, as those classes have many of them.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, PositiveFloat, model_validator

# Far beyond any model, and so small that no list of weights gets too long.
_Count = Annotated[int, Field(ge=1, le=1000, strict=True)]
_Width = Annotated[int, Field(ge=1, le=1 << 20, strict=True)]


_WAN_21 = 16  # channels of the latents of Wan 2.1's VAE


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class ExpertConfig(_Config):
    """The config of an expert; `WanArchitecture.from_config` takes it. Wan 2.1's image experts have layers more."""

    class_name: Literal["WanTransformer3DModel"] = Field(alias="_class_name")
    num_layers: _Count
    num_attention_heads: _Count
    attention_head_dim: _Width
    ffn_dim: _Width
    text_dim: _Width
    freq_dim: _Width
    in_channels: _Width
    out_channels: _Width
    patch_size: tuple[_Count, _Count, _Count]
    cross_attn_norm: bool
    qk_norm: Literal["rms_norm_across_heads"] = "rms_norm_across_heads"
    image_dim: None = None
    added_kv_proj_dim: None = None


class AutoencoderConfig(_Config):
    """The config of a VAE. The spelling `temperal` is the class's own."""

    class_name: Literal["AutoencoderKLWan"] = Field(alias="_class_name")
    base_dim: _Width = 96
    decoder_base_dim: _Width | None = None
    z_dim: _Width = 16
    dim_mult: tuple[_Count, ...] = Field((1, 2, 4, 4), min_length=1, max_length=8)
    num_res_blocks: _Count = 2
    attn_scales: tuple[float, ...] = Field((), max_length=0)
    temperal_downsample: tuple[bool, ...] = (False, True, True)
    is_residual: bool = False
    in_channels: _Width = 3
    out_channels: _Width = 3
    patch_size: _Count | None = None
    latents_mean: tuple[FiniteFloat, ...] | None = None  # silent: those of Wan 2.1
    latents_std: tuple[PositiveFloat, ...] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.temperal_downsample) != len(self.dim_mult) - 1:
            raise ValueError("temperal_downsample must have one entry less than dim_mult")
        for name, statistics in (("latents_mean", self.latents_mean), ("latents_std", self.latents_std)):
            count = _WAN_21 if statistics is None else len(statistics)
            if count != self.z_dim:
                raise ValueError(f"{name} must have z_dim = {self.z_dim} numbers and has {count}")
        return self

    @property
    def decoder_dim(self) -> int:
        """Return the width of the decoder."""
        return self.decoder_base_dim or self.base_dim

    @property
    def stride(self) -> tuple[int, int, int]:
        """Return frames, rows and columns of pixels in one cell of the latents."""
        across = 2 ** (len(self.dim_mult) - 1) * (self.patch_size or 1)
        return 2 ** sum(self.temperal_downsample), across, across


class TextEncoderConfig(_Config):
    """The config of a UMT5 text encoder."""

    model_type: Literal["umt5"]
    vocab_size: _Width
    d_model: _Width
    d_kv: _Width
    d_ff: _Width
    num_layers: _Count
    num_heads: _Count
    relative_attention_num_buckets: _Count = 32
    feed_forward_proj: str = "gated-gelu"

    @property
    def is_gated(self) -> bool:
        """Return whether the feed-forward layer has a gate."""
        return self.feed_forward_proj.startswith("gated-")


class SchedulerConfig(_Config):
    """The config of the flow scheduler. Without these values the class would be one of other models, and draw noise."""

    class_name: Literal["UniPCMultistepScheduler"] = Field(alias="_class_name")
    prediction_type: Literal["flow_prediction"]
    use_flow_sigmas: Literal[True]
    flow_shift: PositiveFloat
    num_train_timesteps: _Width = 1000
