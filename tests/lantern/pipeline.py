"""The pipeline class of the made-up model: draws coloured noise, dimmed or lit by its LoRAs."""

import os
from collections.abc import Callable
from time import perf_counter, sleep
from typing import Self

import numpy as np
from safetensors.numpy import load_file

from deployments.pipeline import Frames, Image, PipelineOptions, Rendered, RenderInputs
from serve_app.errors import ConfigurationInvalid
from serve_app.models.card import ModelCard
from serve_app.results import Application, AppliedLora, MadeWith, PipelineSeconds, Runtime, StartSeconds
from serve_app.spec import LoraFile, RenderSpec
from tests.lantern import STEP_VARIABLE


class LanternPipeline:
    """Keeps the mean of each LoRA's numbers; a video gets brighter by that mean times the multiplier."""

    def __init__(self, card: ModelCard) -> None:
        self._card = card
        self._step_s = float(os.environ.get(STEP_VARIABLE, "0"))
        self._light: dict[str, float] = {}  # by LoraFile.content

    @classmethod
    def load(cls, options: PipelineOptions) -> Self:
        if options.gpus > 1:
            raise ConfigurationInvalid(f"gpus_per_generator: {options.gpus}, and a lantern is drawn by one; use 1")
        return cls(options.card)

    @property
    def start(self) -> StartSeconds:
        return StartSeconds(load=0.25)

    @property
    def runtime(self) -> Runtime:
        return Runtime(device="cpu", dtype="uint8", offload="none", offload_reason="no weights", pristine="host")

    def lacking(self, spec: RenderSpec) -> tuple[LoraFile, ...]:
        return tuple({lora.content: lora for lora in spec.loras if lora.content not in self._light}.values())

    def render(self, spec: RenderSpec, inputs: RenderInputs, on_step: Callable[[int], None]) -> Rendered:
        started = perf_counter()
        for content, on_disk in inputs.loras.items():
            self._light[content] = float(np.mean([tensor.mean() for tensor in load_file(on_disk.path).values()]))
            on_disk.check_unchanged()
        loaded = perf_counter()
        for step in range(spec.sample_steps):
            sleep(self._step_s)
            on_step(step + 1)
        frames = self._draw(spec, inputs.image)
        seconds = PipelineSeconds(lora=loaded - started, text=0, denoise=perf_counter() - loaded, decode=0)
        return Rendered(frames, self._made_with(spec), seconds, frozenset(self._light))

    def probe(self) -> None:
        pass

    def _draw(self, spec: RenderSpec, image: Image | None) -> Frames:
        light = sum(self._light[lora.content] * lora.multiplier for lora in spec.loras)
        noise = np.random.default_rng([spec.seed, *spec.prompt.encode()])
        picture = noise.integers(0, 128, (spec.height, spec.width, 3)) + 100 * light
        first: Frames = np.clip(picture, 0, 255).astype(np.uint8)
        if image is not None:  # the video starts from it, as it is
            first = image
        return np.stack([np.roll(first, number, axis=1) for number in range(spec.num_frames)])

    def _made_with(self, spec: RenderSpec) -> MadeWith:
        return MadeWith(
            recipe=spec.recipe,
            sampler=spec.sampler,
            shift=self._card.default_shift(spec.sampler) if spec.shift is None else spec.shift,
            boundary_step=spec.sample_steps,
            loras=tuple(
                AppliedLora(
                    transformer=lora.expert,
                    network_multiplier=lora.multiplier,
                    sha256=lora.sha256,
                    application=Application.ADAPTER,
                )
                for lora in spec.loras
            ),
            runtime=self.runtime,
        )
