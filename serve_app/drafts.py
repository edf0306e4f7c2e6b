"""Drafts (step distillation): the few-step LoRAs that the arg `draft` names, and how to sample with them.

    draft:
      loras:
        - {path: my_4step_high_noise.safetensors, transformer: high}
        - {path: my_4step_low_noise.safetensors, transformer: low}
      sample_steps: 4

They are trained to need few steps and no guidance, so a step runs the expert once. A render with the recipe `draft`
stacks the user's LoRAs on top of them. The fields of a LoRA, and their limits, are those of `POST /v1/inference`;
`serve_app.loras.drafts` checks them when the service starts.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from serve_app.spec import Expert, Sampler

GUIDANCE_SCALE = 1.0  # none: the LoRAs have learned what guidance does


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DraftLora(_Frozen):
    """One few-step LoRA; `transformer` None is the only expert of a model, or a file that holds both."""

    path: str = Field(min_length=1)
    transformer: Literal["high", "low"] | None = None
    network_multiplier: float = 1.0

    @property
    def expert(self) -> Expert | None:
        """Return the expert that it names; None if it names none."""
        return None if self.transformer is None else Expert(self.transformer)


class Sampling(_Frozen):
    """How a draft is sampled if a prompt does not say otherwise. `shift` None is the sampler's own."""

    sample_steps: int = Field(4, ge=1)
    sampler: Sampler = Sampler.EULER
    shift: float | None = Field(None, gt=0)


class Draft(Sampling):
    """The arg `draft`: what the recipe `draft` of one model is made with."""

    loras: tuple[DraftLora, ...] = Field(min_length=1)
