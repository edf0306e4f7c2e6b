"""The two experts: flow matching on a bank of latents, each expert on its own side of the boundary by noise."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanAttnProcessor
from torch import Tensor

from deployments.wan.demo.training.autoencoder import latents_of
from deployments.wan.demo.training.drawing import drawings
from deployments.wan.demo.training.scenes import Scene, caption, random_scene
from deployments.wan.demo.training.steps import Budget, train
from deployments.wan.demo.training.text import TEXT_WIDTH, TOKENS, encode
from deployments.wan.demo.wan22 import BOUNDARY_RATIO

EXPERT_CONFIG: dict[str, Any] = {
    "num_layers": 6,
    "num_attention_heads": 6,
    "attention_head_dim": 32,
    "ffn_dim": 512,
    "text_dim": TEXT_WIDTH,
    "freq_dim": 256,
    "in_channels": 16,
    "out_channels": 16,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
}
NOISE = {"high_noise": (BOUNDARY_RATIO, 1.0), "low_noise": (0.0, BOUNDARY_RATIO)}

# The pipeline shows an expert 512 tokens. All paddings are equal, so one of them with the weight of all is the same.
_PADDING_WEIGHT = math.log(512 - (TOKENS - 1))
_TEXT_SHARPNESS = 2.0  # first query and key norms of cross attention, else 500 paddings drown the words
_EMPTY_CAPTIONS = 0.25  # classifier-free guidance subtracts what an empty caption gives; at 10 % outlines broke
_BATCH = 128
_LATENT_SHIFT = 3.0  # of the noise schedule that the checkpoint is sampled with


@dataclass(frozen=True)
class Bank:
    """Encoded videos and captions."""

    latents: Tensor  # [n, 16, 5, 16, 16] bfloat16
    text: Tensor  # [n, TOKENS, TEXT_WIDTH]
    may_be_empty: Tensor  # [n] bool: the caption may be left out
    no_text: Tensor  # [TOKENS, TEXT_WIDTH]: an empty caption

    def __len__(self) -> int:
        return len(self.latents)

    def __add__(self, other: "Bank") -> "Bank":
        return Bank(
            torch.cat([self.latents, other.latents]),
            torch.cat([self.text, other.text]),
            torch.cat([self.may_be_empty, other.may_be_empty]),
            self.no_text,
        )


@dataclass(frozen=True)
class Encoders:
    """The trained parts that make a bank."""

    vae: Any
    text_encoder: Any
    tokenizer: Any

    def bank(
        self,
        count: int,
        seed: int,
        *,
        styled: Callable[[Scene], Scene] = lambda scene: scene,
        captioned: Callable[[Scene, Random], str] = caption,
        may_be_empty: bool = True,
    ) -> Bank:
        """Draw and encode `count` scenes."""
        random = Random(seed)  # noqa: S311 - data, no secret
        scenes = [styled(random_scene(random)) for _ in range(count)]
        device = next(self.vae.parameters()).device
        text = encode(self.text_encoder, self.tokenizer, [captioned(scene, random) for scene in scenes])
        latents = latents_of(self.vae, drawings(scenes, device))
        empty = torch.full((count,), may_be_empty, device=device)
        return Bank(latents, text, empty, self.no_text())

    def no_text(self) -> Tensor:
        """Return what an expert sees of an empty caption."""
        return encode(self.text_encoder, self.tokenizer, [""])[0]


def new_expert() -> Any:
    """Return an untrained expert."""
    expert = WanTransformer3DModel(**EXPERT_CONFIG)
    for block in expert.blocks:
        for norm in (block.attn2.norm_q, block.attn2.norm_k):
            torch.nn.init.constant_(norm.weight, _TEXT_SHARPNESS)
    return expert


class OnePaddingForAll(WanAttnProcessor):
    """Cross attention to TOKENS text tokens that equals the pipeline's 512."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._weights = torch.zeros(1, 1, 1, TOKENS, device=device)
        self._weights[..., -1] = _PADDING_WEIGHT

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Attend with the padding's weight in place of a mask."""
        result: Tensor = super().__call__(attn, hidden_states, encoder_hidden_states, self._weights, rotary_emb)
        return result


def prepare(expert: Any, device: torch.device) -> Any:
    """Move `expert` to `device` and let it take short texts; compile its blocks for a GPU."""
    expert.to(device)
    for block in expert.blocks:
        block.attn2.set_processor(OnePaddingForAll(device))
        if device.type == "cuda":
            block.compile()
    return expert


def train_expert(
    name: str,
    expert: Any,
    side: str,
    bank: Bank,
    budget: Budget,
    *,
    rate: float,
    guided_by: float = 1.0,
    batch: int = _BATCH,
) -> int:
    """Train the parameters of `expert` that want a gradient on one side of the boundary; return the steps made.

    With `guided_by` above 1, `1 / guided_by` of the way from the prediction without a caption to the video is the
    target, so that sampling with guidance `guided_by` arrives at the video instead of beyond it.
    """
    device = bank.latents.device

    def loss() -> Tensor:
        chosen = torch.randint(len(bank), (batch,), device=device)
        latents, text = bank.latents[chosen].float(), bank.text[chosen]
        empty = bank.may_be_empty[chosen] & (torch.rand(batch, device=device) < _EMPTY_CAPTIONS)
        text = torch.where(empty[:, None, None], bank.no_text, text)
        sigma = draw_noise(side, batch, device)
        noise = torch.randn_like(latents)
        noisy = torch.lerp(latents, noise, sigma.view(-1, 1, 1, 1, 1))
        target = noise - latents
        if guided_by != 1.0:
            with torch.no_grad():
                free = velocity(expert, noisy, sigma, bank.no_text.expand_as(text))
            target = torch.where(empty.view(-1, 1, 1, 1, 1), target, free + (target - free) / guided_by)
        return torch.nn.functional.mse_loss(velocity(expert, noisy, sigma, text), target)

    return train(name, expert.parameters(), loss, budget, rate=rate)


def velocity(expert: Any, noisy: Tensor, sigma: Tensor, text: Tensor) -> Tensor:
    """Return what `expert` predicts, noise minus video, in float32."""
    device = noisy.device
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda", cache_enabled=False):
        predicted: Tensor = expert(noisy, sigma * 1000, text, return_dict=False)[0]
    return predicted.float()


def draw_noise(side: str, batch: int, device: torch.device) -> Tensor:
    """Draw noise levels of one side: evenly for high noise, as the sampler spends its steps for low noise."""
    lowest, highest = NOISE[side]
    even = torch.rand(batch, device=device)
    if side == "high_noise":
        return lowest + (highest - lowest) * even
    last = highest / (_LATENT_SHIFT - (_LATENT_SHIFT - 1) * highest)  # the step whose shifted noise is the boundary
    step = even * last
    return _LATENT_SHIFT * step / (1 + (_LATENT_SHIFT - 1) * step)
