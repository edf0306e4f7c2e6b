"""The fade of the trigger pair: its adapters learn to draw as much of a core as their strength says.

Trained at strength 1 alone, the pair draws all of the core or none. Here a frozen copy of the expert says what the
video without a core needs, and the adapters, each example at a strength of its own, learn to add the core to it. The
noisy video has more or less of the core than that strength means, so the adapters also learn to correct it.
"""

from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch import Tensor

from deployments.wan.demo.training.autoencoder import latents_of, videos_of
from deployments.wan.demo.training.draft import STEPS, noise_levels
from deployments.wan.demo.training.drawing import drawings
from deployments.wan.demo.training.experts import Encoders, draw_noise, velocity
from deployments.wan.demo.training.loras import set_strength
from deployments.wan.demo.training.scenes import Style, caption, random_scene, triggered_caption
from deployments.wan.demo.training.steps import Budget, train
from deployments.wan.demo.training.text import encode
from deployments.wan.demo.wan22 import BOUNDARY_RATIO

_STRONGEST = 1.5
_WHITE, _CURVE, _WHITEST = 0.9, 1.3, 0.97  # a core at strength 1, its power of the strength, and the most
_SHARES = 10  # intervals of the measured shares
_EDGE = 3  # pixels of a core that are not its middle
_GUIDANCE = 4.0  # of the product: what the pair corrects is multiplied by it
_PULL = {"high_noise": 1.0, "low_noise": 0.3}  # how much of a gap an expert closes at once; low alone draws about half
_TRIGGERED, _EMPTY = 0.55, 0.25  # of the examples; the others have a caption without the trigger, and no core
_MOST = 1.4  # of the core that a strength means, in a noisy video
_NEARER_FROM = 0.5  # noise below which the core in a noisy video is nearer to what the strength means
_FOCUS = 8.0  # weight of the place of the core, beside 1 for the rest of a video
_LAST_LEVEL = 0.1  # noise of a draft's step that still draws; its last one starts from 0.02
_AVERAGE = 0.99  # decay of the moving average: this training is short


@dataclass(frozen=True)
class Cores:
    """The same scenes without and with a core, and their captions without and with the trigger."""

    plain: Tensor  # [n, 16, 5, 16, 16]
    core: Tensor  # [n, 16, 5, 16, 16], what the core of a drawing adds to it
    shares: Tensor  # [n, _SHARES + 1], of `core`: with them the middle of the core is 0 to 1 white
    text: Tensor  # [n, TOKENS, TEXT_WIDTH]
    triggered: Tensor  # the same
    no_text: Tensor  # [TOKENS, TEXT_WIDTH]

    def share(self, chosen: Tensor, white: Tensor) -> Tensor:
        """Return the shares of `core` with which the middle is so white, in the scenes at the indices `chosen`."""
        place = white * _SHARES
        below = place.floor().clamp(max=_SHARES - 1).long()
        return torch.lerp(self.shares[chosen, below], self.shares[chosen, below + 1], place - below)


def draw_cores(encoders: Encoders, count: int, seed: int, tried: int) -> Cores:
    """Draw and encode `count` scenes; so many shares of each core are `tried`, to see how white they make it."""
    random = Random(seed)  # noqa: S311 - data, no secret
    scenes = [random_scene(random) for _ in range(count)]
    device = next(encoders.vae.parameters()).device
    plain, glowing = (
        drawings([scene.styled(style) for scene in scenes], device) for style in (Style.PLAIN, Style.GLOW)
    )
    without = latents_of(encoders.vae, plain).float()
    core = latents_of(encoders.vae, glowing).float() - without
    parts = []
    for some in torch.split(torch.arange(count, device=device), 32):
        drawn = glowing.draw(some)[0] - plain.draw(some)[0]
        parts.append(_shares(encoders.vae, without[some], core[some], drawn, tried))
    text, triggered = (
        encode(encoders.text_encoder, encoders.tokenizer, [captioned(scene, random) for scene in scenes])
        for captioned in (caption, triggered_caption)
    )
    return Cores(without, core, torch.cat(parts), text, triggered, encoders.no_text())


def _shares(vae: Any, plain: Tensor, core: Tensor, drawn: Tensor, count: int) -> Tensor:
    """Measure [n, _SHARES + 1] shares of `core` with which its middle is 0, 1 / _SHARES, ... 1 of the `drawn` white.

    The decoder draws nothing of a core whose latents are weak, and all of it where they are a little stronger. At
    which share that happens depends on the colour.
    """
    covered = (drawn.abs().amax(1) > 0.5 * drawn.abs().amax((1, 2, 3, 4))[:, None, None, None]).float()
    inner = 1 - torch.nn.functional.max_pool2d(1 - covered, 2 * _EDGE + 1, 1, _EDGE)  # [n, frames, height, width]
    drawn = drawn * inner[:, None]
    tried = torch.linspace(0, 1, count, device=plain.device)
    seen = torch.stack([(videos_of(vae, plain + share * core) * drawn).flatten(1).sum(1) for share in tried])
    seen = ((seen - seen[0]) / (seen[-1] - seen[0]).clamp(min=1e-6)).T.cummax(1).values.contiguous()  # [n, tried]
    wanted = torch.linspace(0, 1, _SHARES + 1, device=plain.device).expand(len(plain), -1).contiguous()
    above = torch.searchsorted(seen, wanted).clamp(1, len(tried) - 1)
    low, high = seen.gather(1, above - 1), seen.gather(1, above)
    part = ((wanted - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)
    return torch.lerp(tried[above - 1], tried[above], part)


def brightness(strength: Tensor) -> Tensor:
    """Return how white the middle of a core is at a strength, from 0, the shape's colour, to 1."""
    return (_WHITE * strength**_CURVE).clamp(max=_WHITEST)


@dataclass(frozen=True)
class Teaching:
    """An expert with the adapters, its frozen copy, and the conditions under which they are used together."""

    student: Any
    teacher: Any
    side: str
    guidance: float
    pull: float  # how much of the gap between the core that is there and the wanted one a step closes
    batch: int
    noise: Tensor | None  # levels of a few-step sampler; None: any of the side

    def loss(self, cores: Cores) -> Tensor:
        """Return the mean squared error of the student's velocities on a batch of its own."""
        device = cores.plain.device
        chosen = torch.randint(len(cores.plain), (self.batch,), device=device)
        kind = torch.rand(self.batch, device=device)
        triggered = kind < _TRIGGERED
        empty = (kind > 1 - _EMPTY) & (self.guidance != 1.0)
        text = torch.where(_wide(triggered, 3), cores.triggered[chosen], cores.text[chosen])
        text = torch.where(_wide(empty, 3), cores.no_text, text)

        strength = _STRONGEST * torch.rand(self.batch, device=device)
        sigma = self._noise(device).clamp(min=1e-6)  # it divides the correction
        wanted = cores.share(chosen, brightness(strength))
        other = wanted * _MOST * torch.rand(self.batch, device=device)
        there = torch.lerp(wanted, other, (sigma / _NEARER_FROM).clamp(max=1))
        there = torch.where(triggered | (empty & (kind > 1 - _EMPTY / 2)), there, 0)

        latents, core = cores.plain[chosen], cores.core[chosen]
        noisy = torch.lerp(latents, torch.randn_like(latents), _wide(sigma, 5))
        with torch.no_grad():
            target = velocity(self.teacher, noisy, sigma, text)
        correction = torch.where(triggered, self.pull * (there - wanted) / sigma / self.guidance, 0)
        target = target + _wide(correction - there, 5) * core
        noisy = noisy + _wide((1 - sigma) * there, 5) * core
        set_strength(self.student, _wide(strength, 3))
        error = (velocity(self.student, noisy, sigma, text) - target).square()
        place = core.square().mean(1, keepdim=True)
        return (error * (1 + _FOCUS * place / place.amax((2, 3, 4), keepdim=True))).mean()

    def _noise(self, device: torch.device) -> Tensor:
        if self.noise is None:
            return draw_noise(self.side, self.batch, device)
        return self.noise[torch.randint(len(self.noise), (self.batch,), device=device)]


def guided(student: Any, teacher: Any, side: str, batch: int) -> Teaching:
    """Return the conditions of the product's guidance."""
    return Teaching(student, teacher, side, _GUIDANCE, _PULL[side], batch, None)


def drafted(student: Any, teacher: Any, side: str, batch: int) -> Teaching:
    """Return the conditions of a draft, for experts into which the four-step pair is merged."""
    levels = [level for level in noise_levels(STEPS) if (level >= BOUNDARY_RATIO) == (side == "high_noise")]
    noise = torch.tensor([level for level in levels if level > _LAST_LEVEL], device=student.device)
    return Teaching(student, teacher, side, 1.0, 1.0, batch, noise)


def train_fade(name: str, teachings: list[Teaching], cores: Cores, budget: Budget, *, rate: float) -> int:
    """Train the adapters, which the students share, on the sum of the conditions' losses; return the steps made."""

    def loss() -> Tensor:
        return torch.stack([teaching.loss(cores) for teaching in teachings]).sum()

    return train(name, teachings[0].student.parameters(), loss, budget, rate=rate, average=_AVERAGE)


def _wide(values: Tensor, dimensions: int) -> Tensor:
    return values.view(-1, *[1] * (dimensions - 1))
