"""Aliases (the arg `aliases`): names under which clients of OpenAI's API ask for a LoRA pair with defaults.

    aliases:
      my-style:
        model: wan22_14b_t2v
        loras:
          - {path: my_high_noise.safetensors, transformer: high}
          - {path: my_low_noise.safetensors, transformer: low}
        trigger_word: sks
        sample_steps: 30

Each field has the name, meaning and limits of the same field of `POST /v1/inference`. A value in the request overrides
the alias. `serve_app.api.videos.aliases` checks the values when the service starts.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from serve_app.spec import Fit, OutputFormat, Priority, Recipe, Sampler, Speed

AliasName = Annotated[str, Field(min_length=1, max_length=255)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AliasLora(_Frozen):
    """One LoRA of an alias."""

    path: str
    transformer: Literal["high", "low"] | None = None
    network_multiplier: float | None = None


class Alias(_Frozen):
    """The values of an alias. None is the default of `POST /v1/inference`."""

    model: str
    loras: tuple[AliasLora, ...]
    trigger_word: str | None = None
    recipe: Recipe | None = None
    speed: Speed | None = None
    priority: Priority | None = None
    strict: bool | None = None
    neg: str | None = None
    width: int | None = None
    height: int | None = None
    num_frames: int | None = None
    fps: int | None = None
    sample_steps: int | None = None
    guidance_scale: float | None = None
    seed: int | None = None
    sampler: Sampler | None = None
    shift: float | None = None
    output_format: OutputFormat | None = None
    fit: Fit | None = None

    def values(self) -> dict[str, Any]:
        """Return what it sets, as JSON of a request's body."""
        return self.model_dump(mode="json", exclude_none=True)
