"""Sampling: make one video with the scheduler of its spec, the denoising loop of diffusers, and the VAE.

Each render gets a new scheduler, so that no state of an earlier render has an effect.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from deployments.pipeline import Frames, Previewing
from deployments.wan.conditioning import Conditioning, acting_on, condition
from deployments.wan.latent_rgb import RgbMap, predicted
from deployments.wan.loading import COMPONENTS
from deployments.wan.parallel.team import Team
from serve_app.errors import RenderFailed
from serve_app.models.card import ImageInput, ModelCard
from serve_app.results import Parallelism
from serve_app.spec import RenderSpec, Sampler

_NO_FRAMES = np.empty((0, 0, 0, 3), np.uint8)


class Stopwatch:
    """Measures the seconds that the parts of one render take, one after the other."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = time.perf_counter()

    @property
    def rounded(self) -> dict[str, float]:
        """Return the seconds of each part, to a millisecond."""
        return {part: round(seconds, 3) for part, seconds in self.seconds.items()}

    def lap(self, part: str) -> None:
        """Count the time since the last lap for `part`."""
        now = time.perf_counter()
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self._since
        self._since = now


@dataclass(frozen=True, slots=True)
class Sampled:
    """One video, and what its scheduler did."""

    frames: Frames  # none on a rank that does not lead
    shift: float  # flow shift in effect
    boundary_step: int  # denoising steps of the high noise expert


class VideoSampler:
    """Runs one pipeline whose experts and text embeddings are ready."""

    def __init__(
        self, pipe: Any, device: torch.device, card: ModelCard, team: Team | None = None, rgb: RgbMap | None = None
    ) -> None:
        """Take a WanPipeline of `card` with the scheduler that its checkpoint ships; `device` computes.

        `team` has the ranks that render with this one; silent: none. `rgb` draws previews; silent: there are none.
        """
        self._rgb = rgb
        self._pipe = pipe
        self._team = team or Team()
        self._device = device
        self._card = card
        self._experts = [getattr(pipe, COMPONENTS[side]) for side in card.experts]
        self._shipped_scheduler = pipe.scheduler

    def passes(self, spec: RenderSpec) -> tuple[int, ...]:
        """Count the forward passes of each expert in a render, in their order."""
        scheduler = make_scheduler(spec, self._shipped_scheduler, self._card)
        scheduler.set_timesteps(spec.sample_steps)
        high = boundary_step(scheduler, self._card.boundary_ratio(spec.recipe))
        a_step = 2 if spec.guidance_scale > 1 else 1
        return (high * a_step, (len(scheduler.timesteps) - high) * a_step)[: len(self._experts)]

    def sample(
        self,
        spec: RenderSpec,
        embeddings: Mapping[str, torch.Tensor],
        image: npt.NDArray[np.uint8] | None,
        on_step: Callable[[int], None],
        watch: Stopwatch,
        *,
        mix: Parallelism,
        previews: Previewing | None = None,
    ) -> Sampled:
        """Generate the frames of `spec`, shared by `mix`; time the parts "denoise" and "decode".

        `embeddings` are arguments of the pipeline in place of prompts. `image`, RGB at the spec's size, is what the
        video starts from. `on_step` gets the count of finished denoising steps after each one.

        Raises:
            RenderFailed: there is no image and the model needs one; or see `to_pixels`.
        """
        with self._team.agreed():
            conditioning = self._condition(spec, image)
        watch.lap("text")

        def after_step(_pipe: Any, step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            if step + 1 == spec.sample_steps:
                self._wait_for_device()  # else the last step would count as decoding
            watch.lap("denoise")
            latents = tensors["latents"]
            if previews is not None and self._rgb is not None:
                previews(step + 1, partial(self._draw, latents, before[-1:]))
                before[:] = [latents]
            with self._team.agreed():  # so that all ranks stop at the same step
                on_step(step + 1)
            return {} if conditioning is None else {"latents": conditioning.after_step(latents)}

        before: list[torch.Tensor] = []  # the latents of the step before
        boundary = self._card.boundary_ratio(spec.recipe)
        scheduler = make_scheduler(spec, self._shipped_scheduler, self._card)
        self._pipe.scheduler = scheduler
        self._pipe.register_to_config(boundary_ratio=boundary, expand_timesteps=self._card.token_timesteps)
        tokens = self._card.token_count(width=spec.width, height=spec.height, num_frames=spec.num_frames)
        sharing = self._team.sharing(mix, tokens, embeddings.get("negative_prompt_embeds"))
        with acting_on(self._experts, conditioning), sharing:
            result = self._pipe(
                **embeddings,
                width=spec.width,
                height=spec.height,
                num_frames=spec.num_frames,
                num_inference_steps=spec.sample_steps,
                # Only this one: the pipeline then uses it for both experts, and 1.0 turns guidance off for both.
                guidance_scale=spec.guidance_scale,
                # On the CPU whatever the device, so that a seed means the same noise everywhere.
                generator=torch.Generator("cpu").manual_seed(spec.seed),
                latents=None if conditioning is None else conditioning.latents,
                callback_on_step_end=after_step,
                output_type="np" if self._team.leads else "latent",
            )
        frames = to_pixels(result.frames[0], spec) if self._team.leads else _NO_FRAMES
        watch.lap("decode")
        return Sampled(frames, shift_of(scheduler), boundary_step(scheduler, boundary))

    def _draw(self, latents: torch.Tensor, before: Sequence[torch.Tensor]) -> Frames | None:
        """Return a preview of the video that the last step was heading for."""
        video = predicted(self._pipe.scheduler, latents, before[0] if before else None)
        return None if video is None or self._rgb is None else self._rgb.frames(video)

    def _condition(self, spec: RenderSpec, image: npt.NDArray[np.uint8] | None) -> Conditioning | None:
        if image is not None:
            return condition(self._pipe, self._card, spec, image, self._device)
        if self._card.image_input is ImageInput.REQUIRED:
            raise RenderFailed(f"{self._card.title} starts a video from an image, and the render has none")
        return None

    def _wait_for_device(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def make_scheduler(spec: RenderSpec, shipped: Any, card: ModelCard) -> Any:
    """Return a fresh scheduler for `spec`; `shipped`, the base checkpoint's, is only looked at.

    Without a shift in the spec, UniPC is the checkpoint's scheduler, bit for bit, and Euler is that of AI Toolkit's
    previews.
    """
    if spec.sampler is Sampler.EULER:
        shift = card.preview_shift if spec.shift is None else spec.shift
        return FlowMatchEulerDiscreteScheduler(num_train_timesteps=card.train_timesteps, shift=shift)
    changes = {} if spec.shift is None else {_shift_name(shipped.config): spec.shift}
    return type(shipped).from_config(shipped.config, **changes)


def shift_of(scheduler: Any) -> float:
    """Return the flow shift that is in effect."""
    return float(scheduler.config[_shift_name(scheduler.config)])


def boundary_step(scheduler: Any, boundary_ratio: float | None) -> int:
    """Count the denoising steps that the high noise expert ran.

    It takes those whose timestep is at or above boundary_ratio x the scheduler's training timesteps
    (`WanPipeline.__call__`); without a ratio, all.
    """
    if boundary_ratio is None:
        return len(scheduler.timesteps)
    boundary = boundary_ratio * scheduler.config["num_train_timesteps"]
    return sum(timestep >= boundary for timestep in scheduler.timesteps.tolist())


def to_pixels(video: npt.NDArray[np.float32], spec: RenderSpec) -> Frames:
    """Convert [frames, height, width, 3] from 0..1 to 0..255, rounded to the nearest as diffusers rounds PIL frames.

    Raises:
        RenderFailed: a number is not finite, or the shape is not the spec's.
    """
    expected = (spec.num_frames, spec.height, spec.width, 3)
    if video.shape != expected:
        raise RenderFailed(f"the pipeline gave frames of shape {video.shape}, expected {expected}")
    if not np.isfinite(video).all():
        raise RenderFailed(
            "the video has pixels that are not finite numbers; a LoRA with broken weights, or too high a multiplier "
            "for it, does that"
        )
    return (video * 255).round().astype(np.uint8)


def _shift_name(config: Mapping[str, Any]) -> str:
    return "flow_shift" if "flow_shift" in config else "shift"
