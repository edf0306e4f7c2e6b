"""Random weights with a shape: noise becomes slowly moving colour fields that depend on the prompt and the seed.

Untrained networks of this architecture answer noise with noise. The weights here are random too, but placed so that
each layer does in miniature what training would have it do: the experts keep what is smooth in the latent and let the
rest decay, the prompt chooses colours, and the decoder interpolates. All draws come from torch's global generator,
which the caller seeds.
"""

from typing import Any

import torch
from torch import Tensor, nn

_PATCH = 4  # latent pixels of one token, 2x2

_SIGNAL = 0.25  # how strongly a latent enters the residual stream
_IMAGE = 0.5  # of that: how strongly a control image does
_ANCHOR = 6.0  # length of a constant in it, beside which the signal is small, so that layer norms act linearly
_DECAY = 1.6  # rate per unit of sigma at which what no layer writes back decays
_SHARPNESS = 2.6  # weight of the query and key norms of self-attention: how local it is in space
_TIME_SHARPNESS = 1.6  # and in time
_TEXT_SHARPNESS = 3.0  # likewise of cross-attention: how clearly a place picks one word
# How strongly each kind of layer writes into the residual stream. Sampling subtracts what the experts predict, so a
# negative strength makes grow what the layer sees.
_SELF, _TEXT, _FEED_FORWARD = -3.0, 0.12, 0.15
_CONTRAST = 0.45  # standard deviation of each colour, in -1..1
_LOG_VARIANCE = -4.0  # of the latents of a picture
_BLUR = (0.25, 0.5, 0.25)  # along height and width
_FADE = (0.2, 0.3, 0.5)  # along time, the current frame last


@torch.no_grad()
def shape_expert(expert: Any) -> None:
    """Place the weights of a WanTransformer3DModel whose inner width is more than 4 times its latent channels.

    The channels of a control image, the last of the input if there are more than latent ones, enter as the latent's.
    """
    width = expert.patch_embedding.weight.shape[0]
    channels, inputs = expert.config.out_channels, expert.config.in_channels
    signal = channels * _PATCH
    basis = torch.linalg.qr(torch.randn(width, signal + 1)).Q
    read, anchor = basis[:, :signal], basis[:, signal]
    # Columns of `read` count (channel, pixel of the patch); `smooth` are the means of each channel over the patch.
    smooth = read.view(width, channels, _PATCH).mean(-1) * _PATCH**0.5
    entering = _SIGNAL * read.view(width, channels, *expert.config.patch_size)
    expert.patch_embedding.weight.zero_()[:, :channels] = entering
    if inputs > channels:
        expert.patch_embedding.weight[:, -channels:] = _IMAGE * entering
    expert.patch_embedding.bias.copy_(_ANCHOR * anchor)
    for block in expert.blocks:
        _shape_block(block, smooth)
    _shape_text_projection(expert)
    expert.scale_shift_table.zero_()
    # The output projection counts (pixel, channel).
    write = read.view(width, channels, _PATCH).transpose(1, 2).reshape(width, signal).T
    norm_gain = width**0.5 / _ANCHOR
    expert.proj_out.weight.copy_(_DECAY / (_SIGNAL * norm_gain) * write)
    expert.proj_out.bias.zero_()


def _shape_block(block: Any, smooth: Tensor) -> None:
    block.scale_shift_table.copy_(torch.tensor([0.0, 0, 1, 0, 0, 1])[None, :, None].expand_as(block.scale_shift_table))
    _shape_self_attention(block.attn1, smooth)
    _shape_text_attention(block.attn2, smooth)
    _write_into(block.ffn.net[2], smooth, _FEED_FORWARD)


def _shape_self_attention(attention: Any, smooth: Tensor) -> None:
    """Near places strengthen each other, far ones weaken each other: spots of some tokens' size grow out of noise.

    Queries and keys are constant, so the rotary embedding turns each head into a kernel around a place and moment.
    The first half of the heads see the neighbourhood, the other half see whole frames and subtract what they see.
    """
    heads, head_width = attention.heads, smooth.shape[0] // attention.heads
    moments = head_width - 2 * (2 * (head_width // 6))  # rotary dimensions that count frames; the others, rows, columns
    sharpness = torch.zeros(heads, head_width)
    sharpness[: heads // 2] = _SHARPNESS
    sharpness[:, :moments] = _TIME_SHARPNESS
    for projection, norm in ((attention.to_q, attention.norm_q), (attention.to_k, attention.norm_k)):
        projection.weight.zero_()
        projection.bias.fill_(1)
        norm.weight.copy_(sharpness.flatten())
    channels = smooth.shape[1]
    mixing = torch.eye(channels) + 0.4 * torch.randn(channels, channels) / channels**0.5
    attention.to_v.weight.view(heads, head_width, -1).zero_()[:, :channels] = smooth.T
    attention.to_v.bias.zero_()
    signs = torch.tensor([1.0] * (heads // 2) + [-1.0] * (heads // 2)) * 2 / heads
    written = _SELF * signs[:, None] * (smooth @ mixing)[:, None, :]
    out = attention.to_out[0]
    out.weight.view(-1, heads, head_width).zero_()[:, :, :channels] = written
    out.bias.zero_()


def _shape_text_attention(attention: Any, smooth: Tensor) -> None:
    for norm in (attention.norm_q, attention.norm_k):
        norm.weight.fill_(_TEXT_SHARPNESS)
    # Queries see the picture and not the anchor, so that places differ in the word that they pick.
    attention.to_q.weight.copy_(torch.randn(smooth.shape) @ smooth.T)
    attention.to_q.bias.zero_()
    for projection in (attention.to_k, attention.to_v):
        projection.bias.zero_()  # padding is zeros and must stay zeros: the model does not mask it
    _write_into(attention.to_out[0], smooth, _TEXT)


def _write_into(projection: nn.Linear, smooth: Tensor, strength: float) -> None:
    fan_in = projection.in_features
    projection.weight.copy_(strength * smooth @ torch.randn(smooth.shape[1], fan_in) / fan_in**0.5)
    projection.bias.zero_()


def _shape_text_projection(expert: Any) -> None:
    """Let zero padding stay zero through the text projection, and words be as strong as the residual stream."""
    for linear in (expert.condition_embedder.text_embedder.linear_1, expert.condition_embedder.text_embedder.linear_2):
        linear.weight.normal_(std=linear.in_features**-0.5)
        linear.bias.zero_()


@torch.no_grad()
def shape_vae(vae: Any) -> None:
    """Make the decoder of an AutoencoderKLWan interpolate, and its encoder tell pictures apart.

    The decoder is random between channels, smooth in space and time.
    """
    for module in vae.decoder.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d) and module.kernel_size[-1] == len(_BLUR):
            _smooth(module)
    _calibrate_contrast(vae)
    _calibrate_encoder(vae)


def _smooth(convolution: Any) -> None:
    blur = torch.tensor(_BLUR)
    kernel = blur[:, None] * blur
    if isinstance(convolution, nn.Conv3d):
        kernel = torch.tensor(_FADE[-convolution.kernel_size[0] :])[:, None, None] * kernel
    outputs, inputs = convolution.weight.shape[:2]
    mixing = torch.randn(outputs, inputs) / inputs**0.5
    convolution.bias.zero_()  # a constant would drown weak latents in the norms that follow
    convolution.weight.copy_(mixing.view(outputs, inputs, *[1] * kernel.ndim) * kernel)


def _calibrate_contrast(vae: Any) -> None:
    """Make red, green and blue of typical videos independent, around a middle grey, with a good part of -1..1."""
    last = vae.decoder.conv_out
    mean, std = (torch.tensor(values).view(-1, 1, 1, 1) for values in (vae.config.latents_mean, vae.config.latents_std))
    spots = nn.functional.interpolate(
        torch.randn(4, vae.config.z_dim, 5, 4, 4), scale_factor=(1, 3, 3), mode="trilinear"
    )
    colours = vae.decode(1.5 * spots * std + mean).sample.transpose(0, 1).flatten(1)
    variances, axes = torch.linalg.eigh(colours.cov())
    whitening = _CONTRAST * axes @ torch.diag(variances.rsqrt()) @ axes.T
    # The last layer has several outputs for each colour where it makes patches of pixels.
    patch = last.out_channels // len(whitening)
    whitening = torch.kron(whitening, torch.eye(patch))
    last.bias.copy_(whitening @ (last.bias - colours.mean(1).repeat_interleave(patch)))
    last.weight.copy_(torch.einsum("oc,cithw->oithw", whitening, last.weight))


def _calibrate_encoder(vae: Any) -> None:
    """Make the latents of pictures as strong as noise, and their distribution narrow."""
    pictures = nn.functional.interpolate(torch.randn(8, 3, 1, 8, 8), scale_factor=(1, 16, 16), mode="trilinear")
    encoded = vae.encode(pictures.clamp(-1, 1)).latent_dist.mean.transpose(0, 1).flatten(1)
    wanted_mean, wanted_std = (torch.tensor(values) for values in (vae.config.latents_mean, vae.config.latents_std))
    gain = wanted_std / encoded.std(1)
    last, means = vae.quant_conv, vae.config.z_dim
    last.weight[:means].mul_(gain.view(-1, 1, 1, 1, 1))
    last.bias[:means] = (last.bias[:means] - encoded.mean(1)) * gain + wanted_mean
    last.weight[means:] = 0
    last.bias[means:] = _LOG_VARIANCE
