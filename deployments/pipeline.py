"""The pipelines that a model card can name. Adding a model is adding a card and a class here."""

from collections.abc import Callable
from pkgutil import resolve_name
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from serve_app.errors import ConfigurationError
from serve_app.settings import OffloadMode, PristineMode
from serve_app.spec import RenderSpec

# By name, so that only a Generator imports the model stack.
_PIPELINES = {"wan22_t2v": "deployments.wan.runtime:WanRuntime"}


class Pipeline(Protocol):
    """A loaded base model that renders any spec of its model card."""

    @classmethod
    def load(
        cls,
        *,
        base_model: str,
        transformer_model: str,
        dtype: str,
        offload: OffloadMode,
        hf_token: str | None,
        device: str,
        pristine: PristineMode,
        lora_memory_bytes: int,
    ) -> Self:
        """Load the base model. Blocking, for minutes with real weights.

        `pristine` says where weights that LoRAs change are kept as they were; LoRAs stay ready within
        `lora_memory_bytes` of host memory.
        """

    def render(self, spec: RenderSpec, on_step: Callable[[int], None]) -> npt.NDArray[np.uint8]:
        """Make the LoRA state right for `spec` and generate its frames, [frames, height, width, 3] in RGB.

        `on_step` gets the count of finished denoising steps after each; what it raises ends the render and leaves
        the pipeline ready for the next.

        Raises:
            RenderError: there will be no video; the pipeline is ready for the next render.
        """

    def probe(self) -> None:
        """Raise if the device no longer works and the process must be replaced. Blocking."""

    @property
    def pair_key(self) -> str | None:
        """The LoRA pair that is loaded now."""

    @property
    def timings(self) -> dict[str, float]:
        """Seconds of each part of the last render that gave frames."""

    @property
    def report(self) -> dict[str, Any]:
        """How the last render that gave frames was made, in JSON's types: what a recipe left open, and each LoRA."""

    @property
    def summary(self) -> dict[str, Any]:
        """What this pipeline runs on: device, dtype, offload plan with its reason, place of untouched weights."""


def pipeline_class(name: str) -> type[Pipeline]:
    """The class under that name.

    Raises:
        ConfigurationError: a model card names a pipeline that does not exist.
    """
    if name not in _PIPELINES:
        raise ConfigurationError(f"no pipeline is called '{name}'; there are: {', '.join(_PIPELINES)}")
    found: type[Pipeline] = resolve_name(_PIPELINES[name])
    return found
