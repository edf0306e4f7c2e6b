"""Renders of the trained demo in batches: prompts that share LoRAs, recipe and steps, two at a time on each core.

Alone, a video of this size takes three times as long to decode. A runtime renders one at a time, so its pipeline is
used directly, after the runtime has applied the LoRAs; `test_a_batch_shows_what_the_runtime_renders` compares the two.
"""

import copy
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import torch
from diffusers import WanPipeline

from deployments.pipeline import Frames
from deployments.wan.runtime import WanRuntime
from deployments.wan.sampling import make_scheduler, to_pixels
from serve_app.models.card import load_card
from serve_app.spec import LoraFile, Recipe, RenderSpec, Sampler
from tests.deployments.wan.conftest import make_spec
from tests.deployments.wan.demo.readings import HUES, Reading, read
from tests.deployments.wan.held import held

SHAPES = ("circle", "square", "triangle")
DIRECTIONS = ("right", "left", "up", "down", "still")
PREVIEW: Mapping[str, Any] = {"recipe": Recipe.PREVIEW, "sampler": Sampler.EULER}
DRAFT: Mapping[str, Any] = {
    "recipe": Recipe.DRAFT,
    "sampler": Sampler.EULER,
    "sample_steps": 4,
    "guidance_scale": 1.0,
}
_AS_TRAINED = {"width": 128, "height": 128, "num_frames": 17}
_BATCH = 2


@dataclass(frozen=True)
class Wanted:
    """What a prompt asks for, and the seed of its render."""

    colour: str
    shape: str
    direction: str
    seed: int

    @property
    def prompt(self) -> str:
        """Return the prompt without a trigger word."""
        motion = "standing still" if self.direction == "still" else f"moving {self.direction}"
        return f"a {self.colour} {self.shape} {motion}"

    def is_shown(self, reading: Reading | None) -> bool:
        return reading is not None and (reading.colour, reading.shape, reading.direction) == (
            self.colour,
            self.shape,
            self.direction,
        )


# Each colour four times, each shape eight times, each direction four or five times.
WANTED = tuple(Wanted(list(HUES)[n % 6], SHAPES[(n + n // 6) % 3], DIRECTIONS[n % 5], seed=42 + n) for n in range(24))
MANY = WANTED[:12]  # a video takes two seconds of a core
SOME = WANTED[:6]  # every colour, shape and direction
FEW = WANTED[:4]


@dataclass(frozen=True)
class Shown:
    """One video of the demo."""

    wanted: Wanted
    frames: Frames
    latents: torch.Tensor  # after the last step, [16, 5, 16, 16]
    reading: Reading | None

    @property
    def right(self) -> bool:
        return self.wanted.is_shown(self.reading)

    @property
    def core(self) -> float:
        """Return how white the middle of the thing is, 0 to 1; 0 if there is none."""
        return 0.0 if self.reading is None else self.reading.core


@dataclass(frozen=True)
class _Made:
    frames: Frames
    latents: torch.Tensor


class Gallery:
    """Renders what is asked for, and each video once."""

    def __init__(self, runtime: WanRuntime) -> None:
        """Render on `runtime`, which must be used by nobody else meanwhile."""
        self._runtime = runtime
        self._shown: dict[RenderSpec, _Made] = {}

    def show(self, wanted: Sequence[Wanted], *loras: LoraFile, word: str = "", **changes: Any) -> list[Shown]:
        """Return a video of each; `word` comes before the prompt, `changes` are of the spec. 8 steps unless changed."""
        settings = {**_AS_TRAINED, "sample_steps": 8, **changes}
        specs = [make_spec(*loras, prompt=word + one.prompt, seed=one.seed, **settings) for one in wanted]
        missing = [spec for spec in specs if spec not in self._shown]
        if missing:
            self._shown |= zip(missing, self._render(missing), strict=True)
        videos = [self._shown[spec] for spec in specs]
        return [
            Shown(one, made.frames, made.latents, read(made.frames)) for one, made in zip(wanted, videos, strict=True)
        ]

    def _render(self, specs: list[RenderSpec]) -> list["_Made"]:
        self._apply(specs[0])
        runtime, first = self._runtime, specs[0]
        with runtime._accelerator.running(first.speed, step_cache=first.step_cache):
            return self._in_batches(specs)

    def _in_batches(self, specs: list[RenderSpec]) -> list["_Made"]:
        batches = [specs[start : start + _BATCH] for start in range(0, len(specs), _BATCH)]
        one_core_each = partial(torch.set_num_threads, 1)
        at_once = os.cpu_count() if specs[0].step_cache is None else 1  # a cache is for one video at a time
        with ThreadPoolExecutor(at_once, initializer=one_core_each) as threads:
            return list(chain.from_iterable(threads.map(self._batch, batches)))

    def _apply(self, spec: RenderSpec) -> None:
        pipe = self._runtime._pipe
        with held(self._runtime.lacking(spec), pipe.transformer.config, strict=spec.strict) as files:
            self._runtime._loras.apply(spec, files)

    def _batch(self, specs: list[RenderSpec]) -> list["_Made"]:
        first = specs[0]
        latents: list[torch.Tensor] = []

        def after_step(_pipe: Any, _step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            latents[:] = tensors["latents"]
            return {}

        pipe = _copy_of(self._runtime._pipe, make_scheduler(first, _shipped_scheduler(self._runtime), _CARD))
        videos = pipe(
            prompt=[spec.prompt for spec in specs],
            negative_prompt=[spec.negative_prompt for spec in specs],
            width=first.width,
            height=first.height,
            num_frames=first.num_frames,
            num_inference_steps=first.sample_steps,
            guidance_scale=first.guidance_scale,
            generator=[torch.Generator().manual_seed(spec.seed) for spec in specs],
            callback_on_step_end=after_step,
            output_type="np",
        ).frames
        frames = (to_pixels(video, spec) for video, spec in zip(videos, specs, strict=True))
        return [_Made(*made) for made in zip(frames, latents, strict=True)]


_CARD = load_card("wan22_14b_t2v")


def _shipped_scheduler(runtime: WanRuntime) -> Any:
    return runtime._sampler._shipped_scheduler


def _copy_of(pipe: Any, scheduler: Any) -> Any:
    """Return a pipeline with the same experts, and with its own of what a render changes: scheduler and VAE cache."""
    parts = {**pipe.components, "scheduler": scheduler, "vae": copy.deepcopy(pipe.vae)}
    copied = WanPipeline(**parts, boundary_ratio=pipe.config.boundary_ratio)
    copied.set_progress_bar_config(disable=True)
    return copied
