"""Replay: a stored spec as the fields of a request that gives the same frames when it is posted again.

Example:
    fields = prompt_fields(spec)
    fields["width"], fields["seed"]  # 832, 42

Two places tell a render so: the API of a request (`api.effective`), and a file of itself (`embedded`).
"""

from typing import TypedDict

from serve_app.models import limits
from serve_app.spec import Expert, LoraFile, OutputFormat, RenderSpec, Sampler

_PINNED = "hf://"  # such a location names a commit, so it does not move with a branch


class LoraFields(TypedDict):
    """Fields of one item of `loras`."""

    path: str
    transformer: Expert | None
    network_multiplier: float


class PromptFields(TypedDict):
    """Fields of one item of `prompts`; those of a control image are not among them."""

    prompt: str
    neg: str
    width: int
    height: int
    num_frames: int
    fps: int
    seed: int
    sample_steps: int
    guidance_scale: float
    sampler: Sampler
    shift: float | None
    output_format: OutputFormat


def lora_fields(lora: LoraFile) -> LoraFields:
    """Return a LoRA as a request names it; one of the Hub is pinned to its commit."""
    return LoraFields(
        path=lora.location if lora.location.startswith(_PINNED) else lora.reference,
        transformer=None if lora.expert is Expert.ONLY else lora.expert,
        network_multiplier=lora.multiplier,
    )


def prompt_fields(spec: RenderSpec) -> PromptFields:
    """Return a prompt with every value in effect."""
    return PromptFields(
        prompt=spec.prompt,
        neg=spec.negative_prompt,
        width=spec.width,
        height=spec.height,
        # A count may have been rounded up beyond the limit of a request, which is rounded up to the same count.
        num_frames=min(spec.num_frames, limits.NUM_FRAMES.most),
        fps=spec.fps,
        seed=spec.seed,
        sample_steps=spec.sample_steps,
        guidance_scale=spec.guidance_scale,
        sampler=spec.sampler,
        shift=spec.shift,
        output_format=spec.output_format,
    )
