"""VAE (autoencoder): names and shapes of all its weights, as its config.json determines them.

Source: diffusers 0.42.1, models/autoencoders/autoencoder_kl_wan.py. Wan 2.1's VAE keeps blocks and resamplers of the
encoder in one flat list; Wan 2.2's (`is_residual`) has one block for each resolution.
"""

from collections.abc import Iterator, Sequence

from serve_app.models.architecture import Shape
from serve_app.models.checkpoints.configs import AutoencoderConfig

_Weights = Iterator[tuple[str, Shape]]


def autoencoder_weights(config: AutoencoderConfig) -> dict[str, Shape]:
    """Return the shape of every weight of an `AutoencoderKLWan` by its name."""
    latents = config.z_dim
    return {
        **dict(_encoder(config, [config.base_dim * factor for factor in (1, *config.dim_mult)])),
        **dict(_convolution("quant_conv", 2 * latents, 2 * latents, 1)),
        **dict(_convolution("post_quant_conv", latents, latents, 1)),
        **dict(_decoder(config, [config.decoder_dim * factor for factor in reversed(config.dim_mult)])),
    }


def _encoder(config: AutoencoderConfig, dims: Sequence[int]) -> _Weights:
    yield from _convolution("encoder.conv_in", dims[0], config.in_channels)
    resolutions = list(zip(dims[:-1], dims[1:], (*config.temperal_downsample, None), strict=True))
    for number, (into, out, in_time) in enumerate(resolutions) if config.is_residual else ():
        block = f"encoder.down_blocks.{number}"
        yield from _residuals(f"{block}.resnets", into, out, config.num_res_blocks)
        if in_time is not None:
            yield from _resampling(f"{block}.downsampler", out, out, out if in_time else None)
    if not config.is_residual:
        yield from _flat_blocks(config, resolutions)
    yield from _middle("encoder", dims[-1])
    yield from _end("encoder", dims[-1], 2 * config.z_dim)


def _flat_blocks(config: AutoencoderConfig, resolutions: Sequence[tuple[int, int, bool | None]]) -> _Weights:
    number = 0
    for into, out, in_time in resolutions:
        for index in range(config.num_res_blocks):
            yield from _residual(f"encoder.down_blocks.{number}", into if index == 0 else out, out)
            number += 1
        if in_time is not None:
            yield from _resampling(f"encoder.down_blocks.{number}", out, out, out if in_time else None)
            number += 1


def _decoder(config: AutoencoderConfig, dims: Sequence[int]) -> _Weights:
    yield from _convolution("decoder.conv_in", dims[0], config.z_dim)
    yield from _middle("decoder", dims[0])
    in_times = (*reversed(config.temperal_downsample), None)
    for number, (before, out, in_time) in enumerate(zip((dims[0], *dims[:-1]), dims, in_times, strict=True)):
        block = f"decoder.up_blocks.{number}"
        # A resampler of Wan 2.1 halves the channels.
        into = before // 2 if number and not config.is_residual else before
        yield from _residuals(f"{block}.resnets", into, out, config.num_res_blocks + 1)
        if in_time is not None:
            name = f"{block}.upsampler" if config.is_residual else f"{block}.upsamplers.0"
            yield from _resampling(name, out, out if config.is_residual else out // 2, 2 * out if in_time else None)
    yield from _end("decoder", dims[-1], config.out_channels)


def _middle(part: str, dim: int) -> _Weights:
    attention = f"{part}.mid_block.attentions.0"
    yield f"{attention}.norm.gamma", (dim, 1, 1)
    for name, out in (("to_qkv", 3 * dim), ("proj", dim)):
        yield f"{attention}.{name}.weight", (out, dim, 1, 1)
        yield f"{attention}.{name}.bias", (out,)
    yield from _residuals(f"{part}.mid_block.resnets", dim, dim, 2)


def _end(part: str, dim: int, out: int) -> _Weights:
    yield f"{part}.norm_out.gamma", (dim, 1, 1, 1)
    yield from _convolution(f"{part}.conv_out", out, dim)


def _residuals(name: str, into: int, out: int, count: int) -> _Weights:
    for index in range(count):
        yield from _residual(f"{name}.{index}", into if index == 0 else out, out)


def _residual(name: str, into: int, out: int) -> _Weights:
    for number, channels in ((1, into), (2, out)):
        yield f"{name}.norm{number}.gamma", (channels, 1, 1, 1)
        yield from _convolution(f"{name}.conv{number}", out, channels)
    if into != out:
        yield from _convolution(f"{name}.conv_shortcut", out, into, 1)


def _resampling(name: str, into: int, out: int, in_time: int | None) -> _Weights:
    """Yield a resampler's weights; `in_time`: the output channels of its convolution over frames, if it has one."""
    yield f"{name}.resample.1.weight", (out, into, 3, 3)
    yield f"{name}.resample.1.bias", (out,)
    if in_time is not None:
        yield f"{name}.time_conv.weight", (in_time, into, 3, 1, 1)
        yield f"{name}.time_conv.bias", (in_time,)


def _convolution(name: str, out: int, into: int, size: int = 3) -> _Weights:
    yield f"{name}.weight", (out, into, size, size, size)
    yield f"{name}.bias", (out,)
