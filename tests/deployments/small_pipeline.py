"""A real pipeline that draws noise instead of running a model; its prompts say what befalls it."""

import hashlib
import re
import threading
import time
from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np

from deployments.pipeline import Frames, Image, PipelineOptions, Rendered, RenderInputs
from serve_app.errors import OutOfMemory
from serve_app.results import Application, AppliedLora, MadeWith, PipelineSeconds, Runtime, StartSeconds
from serve_app.spec import LoraFile, RenderSpec

FAILS = "the pipeline raises"
OUT_OF_MEMORY = "the device runs out of memory"
BREAKS = "the device breaks, and every later probe fails"
SLOW = "each step takes 5 ms"


def waits_after(step: int) -> str:
    """Return a prompt whose render waits after that step until `SmallPipeline.go` is set."""
    return f"wait after step {step}"


class SmallPipeline:
    """Keeps the LoRAs of its last render ready, and draws frames that follow from the spec alone."""

    loaded: ClassVar[list["SmallPipeline"]] = []  # every one of this process, the newest last

    def __init__(self) -> None:
        self.broken = False
        self.waiting = threading.Event()  # set: a render waits
        self.go = threading.Event()
        self.rendered: list[RenderSpec] = []
        self.images: list[Image | None] = []  # of each, in the same order
        self._resident: frozenset[str] = frozenset()

    @classmethod
    def load(cls, options: PipelineOptions) -> Self:
        pipeline = cls()
        cls.loaded.append(pipeline)
        return pipeline

    def lacking(self, spec: RenderSpec) -> tuple[LoraFile, ...]:
        return tuple(lora for lora in spec.loras if lora.content not in self._resident)

    def render(self, spec: RenderSpec, inputs: RenderInputs, on_step: Callable[[int], None]) -> Rendered:
        assert {lora.content for lora in self.lacking(spec)} == inputs.loras.keys()
        self._misfortune(spec.prompt)
        for step in range(1, spec.sample_steps + 1):
            if spec.prompt == SLOW:
                time.sleep(0.005)
            if inputs.previews is not None:
                inputs.previews(step, lambda: draw(spec)[:2])
            on_step(step)
            if spec.prompt == waits_after(step):
                self.waiting.set()
                assert self.go.wait(timeout=30)
        self._resident = frozenset(lora.content for lora in spec.loras)
        self.rendered.append(spec)
        self.images.append(inputs.image)
        return Rendered(draw(spec), _made_with(spec), _SECONDS, self._resident)

    def probe(self) -> None:
        if self.broken:
            raise RuntimeError("the device does not answer")

    @property
    def start(self) -> StartSeconds:
        return StartSeconds(load=0.25)

    @property
    def runtime(self) -> Runtime:
        return _RUNTIME

    def _misfortune(self, prompt: str) -> None:
        if prompt == OUT_OF_MEMORY:
            raise OutOfMemory("ask for fewer pixels")
        self.broken = self.broken or prompt == BREAKS
        if prompt in (FAILS, BREAKS):
            raise RuntimeError(prompt)


def draw(spec: RenderSpec) -> Frames:
    """Return the frames of a spec."""
    what = re.sub(r"\W", "", f"{spec.prompt}{spec.seed}{spec.pair_key}")
    seed = int.from_bytes(hashlib.sha256(what.encode()).digest()[:8])
    size = (spec.num_frames, spec.height, spec.width, 3)
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8)


_RUNTIME = Runtime(device="cpu", dtype="float32", offload="none", offload_reason="it is small", pristine="host")
_SECONDS = PipelineSeconds(lora=0.0, text=0.0, denoise=0.001, decode=0.0)


def _made_with(spec: RenderSpec) -> MadeWith:
    applied: list[dict[str, Any]] = [
        {"transformer": lora.expert, "network_multiplier": lora.multiplier, "sha256": lora.sha256}
        for lora in spec.loras
    ]
    return MadeWith(
        recipe=spec.recipe,
        sampler=spec.sampler,
        shift=3.0,
        boundary_step=1,
        loras=tuple(AppliedLora(application=Application.ADAPTER, **values) for values in applied),
        runtime=_RUNTIME,
    )
