"""The pipeline interface: what a Generator needs from a model. A new model is a card and a class with this interface.

A Generator uses it like this:

    pipeline = pipeline_class("deployments.wan.runtime:WanRuntime").load(options)
    loras = {lora.content: ... for lora in pipeline.lacking(spec)}  # a LoraOnDisk each, see serve_app.loras.files
    rendered = pipeline.render(spec, RenderInputs(loras), on_step=print)
    rendered.frames.shape  # (41, 1024, 1024, 3)
"""

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from pkgutil import resolve_name
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt
from pydantic import SecretStr

from serve_app.errors import ConfigurationInvalid
from serve_app.loras.files import LoraOnDisk
from serve_app.models.card import ModelCard
from serve_app.needs import NeedKey
from serve_app.results import MadeWith, PipelineSeconds, Runtime, StartSeconds
from serve_app.settings import OffloadMode, PristineMode
from serve_app.spec import LoraFile, RenderSpec, Speed

Frames = npt.NDArray[np.uint8]  # [frames, height, width, 3], RGB, full range 0..255


@dataclass(frozen=True, slots=True)
class PipelineOptions:
    """What a pipeline needs to load its base model."""

    card: ModelCard
    base_model: str  # directory or hub id
    transformer_model: str  # directory or hub id
    dtype: str  # auto, bfloat16 or float32
    offload: OffloadMode
    hf_token: SecretStr | None
    device: str  # "cpu" or "cuda"
    pristine: PristineMode  # where the original weights are kept that merged LoRAs change
    lora_memory_bytes: int  # host memory for resident LoRAs
    compile_cache: Path  # directory of compiled kernels; replicas may share it
    speeds: tuple[Speed, ...] = (Speed.EXACT, Speed.FAST)  # that renders may ask for
    gpus: int = 1  # that share each render; on a CPU, processes
    warm_up: Speed | None = None  # before the pipeline counts as loaded, it makes a small render at this speed


Image = npt.NDArray[np.uint8]  # [height, width, 3], RGB, full range 0..255


Previewing = Callable[[int, Callable[[], Frames | None]], None]
"""Is called after each step with the steps done and a function that draws a few small frames of what there is by then,
or None if nothing can be drawn yet; it draws now and then."""


@dataclass(frozen=True, slots=True)
class RenderInputs:
    """Inputs of a render beside its spec: LoRA files by `LoraFile.content`, and the image in the spec's size.

    `previews` is there where somebody wants some. `needs` is what renders on replicas of this kind were measured to
    need of the GPU's memory besides weights, as `Rendered.need_bytes` had it; there may be nothing.
    """

    loras: Mapping[str, LoraOnDisk]
    image: Image | None = None
    previews: Previewing | None = None
    needs: Mapping[NeedKey, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rendered:
    """One finished video, how it was made, and the LoRAs (`LoraFile.content`) that are resident now."""

    frames: Frames
    made_with: MadeWith
    seconds: PipelineSeconds
    resident: frozenset[str]
    need_bytes: int | None = None  # GPU memory beyond weights, at the peak; None if that was not measured


class Pipeline(Protocol):
    """A loaded base model that renders any spec of its model card, one at a time."""

    @classmethod
    def load(cls, options: PipelineOptions) -> Self:
        """Load the base model. Blocking, for minutes with real weights.

        Raises:
            ConfigurationInvalid: the checkpoint cannot be loaded, or an option does not go with the device; or `gpus`
                says several, and this class cannot share a render.
        """

    def lacking(self, spec: RenderSpec) -> tuple[LoraFile, ...]:
        """Return the LoRAs of `spec` that are not resident, each content once: their files are needed.

        Takes microseconds and touches no file. Valid until the next `render`.
        """

    def render(self, spec: RenderSpec, inputs: RenderInputs, on_step: Callable[[int], None]) -> Rendered:
        """Apply the LoRAs of `spec` and generate its frames. Blocking.

        `inputs.loras` has the LoRAs that `lacking` names; resident ones are not read again. `inputs.image` is set if
        and only if the spec has an image, which only a card with `image_input` allows. `on_step` gets the number of
        finished denoising steps after each step. An exception of `on_step` ends the render, and leaves the pipeline
        ready for the next one.

        Raises:
            RenderError: there will be no video; the pipeline is ready for the next render.
        """

    def probe(self) -> None:
        """Compute something tiny. Blocking.

        Raises:
            Exception: the device no longer works, and the process must be replaced.
        """

    @property
    def start(self) -> StartSeconds:
        """Return how long the parts of `load` took."""

    @property
    def runtime(self) -> Runtime:
        """Return what this pipeline runs on now: device, dtype, offload plan, resident LoRAs."""


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Pause the garbage collector: imports create permanent objects, and scanning them repeatedly takes a second."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def pipeline_class(name: str) -> type[Pipeline]:
    """Import the class that a model card names as "module:Class".

    Raises:
        ConfigurationInvalid: there is no such class, or its module cannot be imported.
    """
    try:
        with _collector_paused():
            found = resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationInvalid(
            f"pipeline: cannot import '{name}' ({error}); a model card names a module:Class"
        ) from error
    if not isinstance(found, type):
        raise ConfigurationInvalid(f"pipeline: '{name}' is not a class; a model card names a module:Class")
    return found
