"""The four-step pair: distillation by regression on the trajectories of the guided experts.

The guided experts are sampled in many steps without a LoRA. A LoRA then learns to go from each fourth of the way to
the next in one step and without guidance: its velocity is the difference of the two latents over that of the noise.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from deployments.wan.demo.training.experts import Bank, velocity
from deployments.wan.demo.training.steps import Budget, train
from deployments.wan.demo.wan22 import BOUNDARY_RATIO

STEPS = 4
_SHIFT = 5.0  # the preview recipe's: with it two of four steps are on each side of the boundary
_GUIDANCE = 4.0
_BATCH = 128


@dataclass(frozen=True)
class Trajectories:
    """Latents at each of the student's steps, with the captions that led there."""

    noise: list[float]  # noise levels, STEPS + 1 of them, from 1 to 0
    latents: list[Tensor]  # [n, 16, 5, 16, 16] at each level
    text: Tensor


def noise_levels(steps: int) -> list[float]:
    """Return the noise before each step of the preview recipe, and the 0 after the last."""
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=_SHIFT)
    scheduler.set_timesteps(steps)
    levels: list[float] = scheduler.sigmas.tolist()
    return levels


@torch.no_grad()
def sample_trajectories(high: Any, low: Any, bank: Bank, count: int, *, fine: int) -> Trajectories:
    """Sample `count` videos with guidance, `fine` steps for one of the student's, at which the latents are kept."""
    levels = noise_levels(STEPS)
    kept: list[list[Tensor]] = [[] for _ in levels]
    count = min(count, len(bank))
    batch = min(_BATCH, count)
    for start in range(0, count - batch + 1, batch):
        text = bank.text[start : start + batch]
        latents = torch.randn(bank.latents[start : start + batch].shape, device=text.device)
        kept[0].append(latents.bfloat16())
        for number in range(STEPS):
            span = torch.linspace(levels[number], levels[number + 1], fine + 1).tolist()
            latents = _one_step((high, low), latents, span, text, bank.no_text)
            kept[number + 1].append(latents.bfloat16())
    states = [torch.cat(parts) for parts in kept]
    return Trajectories(levels, states, bank.text[: len(states[0])])


def _one_step(experts: tuple[Any, Any], latents: Tensor, levels: list[float], text: Tensor, no_text: Tensor) -> Tensor:
    """Go from the first noise level to the last in guided Euler steps."""
    for level, following in pairwise(levels):
        expert = experts[0 if level >= BOUNDARY_RATIO else 1]
        sigma = torch.full((len(latents),), level, device=latents.device)
        free = velocity(expert, latents, sigma, no_text.expand_as(text))
        guided = free + _GUIDANCE * (velocity(expert, latents, sigma, text) - free)
        latents = latents + (following - level) * guided
    return latents


def train_draft(name: str, expert: Any, side: str, way: Trajectories, budget: Budget, *, rate: float) -> int:
    """Train the adapters of `expert` on the student's steps of its side; return the steps made."""
    numbers = [n for n in range(STEPS) if (way.noise[n] >= BOUNDARY_RATIO) == (side == "high_noise")]
    device = way.text.device
    before, after = (torch.stack([way.latents[n + shift] for n in numbers]) for shift in (0, 1))
    level, following = (torch.tensor([way.noise[n + shift] for n in numbers], device=device) for shift in (0, 1))
    count = len(way.text)
    batch = min(_BATCH, count)

    def loss() -> Tensor:
        step = torch.randint(len(numbers), (batch,), device=device)
        chosen = torch.randint(count, (batch,), device=device)
        latents = before[step, chosen].float()
        span = (following - level)[step].view(-1, 1, 1, 1, 1)
        target = (after[step, chosen].float() - latents) / span
        return torch.nn.functional.mse_loss(velocity(expert, latents, level[step], way.text[chosen]), target)

    return train(name, expert.parameters(), loss, budget, rate=rate)
