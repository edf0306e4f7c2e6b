"""Options that say what a video shows and how it is made, and the request that they become."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from serve_app.cli.console import UsageError
from serve_app.client import InferenceRequest, Side
from serve_app.spec import Fit, OutputFormat, Recipe, Sampler, Speed

_SIZE = re.compile(r"(\d{1,5})\s*[xX]\s*(\d{1,5})")

PromptArgument = Annotated[str, typer.Argument(help="What to show; [trigger] stands for the trigger word.")]
TriggerOption = Annotated[str | None, typer.Option("--trigger", help="Replaces [trigger] in the prompt.")]
NegOption = Annotated[str | None, typer.Option("--neg", help="What not to show.")]
StepsOption = Annotated[int | None, typer.Option("--steps", help="Denoising steps.")]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Of the noise; -1 draws one.")]
SizeOption = Annotated[str | None, typer.Option("--size", help="Width x height in pixels.", metavar="832x480")]
FramesOption = Annotated[int | None, typer.Option("--frames", help="Frames of the video.")]
FpsOption = Annotated[int | None, typer.Option("--fps", help="Frames per second.")]
GuidanceOption = Annotated[float | None, typer.Option("--guidance", help="Classifier-free guidance; 1 = none.")]
RecipeOption = Annotated[
    Recipe,
    typer.Option(
        "--recipe",
        help="reference: the reference server's frames; preview: the trainer's previews'; draft: in a few steps.",
    ),
]
SamplerOption = Annotated[Sampler | None, typer.Option("--sampler", help="The scheduler; the recipe's when omitted.")]
ShiftOption = Annotated[float | None, typer.Option("--shift", help="Flow shift of the sampler.")]
SpeedOption = Annotated[
    Speed | None, typer.Option("--speed", help="exact; fast: rounded otherwise; turbo: approximated.")
]
ModelOption = Annotated[str | None, typer.Option("--model", help="Id of the model; the service's first when omitted.")]
ImageOption = Annotated[
    str | None, typer.Option("--image", help="The image that the video starts from: a file here, or an address.")
]
FitOption = Annotated[Fit | None, typer.Option("--fit", help="How the image gets the video's size.")]


@dataclass(frozen=True)
class Lora:
    """A LoRA as the service names it, the expert it is for, and its scale."""

    path: str
    side: Side | None
    strength: float

    def item(self) -> dict[str, Any]:
        """Return it as a request has it."""
        return _given({"path": self.path, "transformer": self.side, "network_multiplier": self.strength})


@dataclass(frozen=True, kw_only=True)
class Look:
    """What the options say about a video; None where the model's default counts."""

    prompt: str
    trigger: str | None = None
    neg: str | None = None
    steps: int | None = None
    seed: int | None = None
    size: str | None = None
    frames: int | None = None
    fps: int | None = None
    guidance: float | None = None
    recipe: Recipe = Recipe.REFERENCE
    sampler: Sampler | None = None
    shift: float | None = None
    speed: Speed | None = None
    image: str | None = None
    fit: Fit | None = None
    output_format: OutputFormat = OutputFormat.MP4

    def request(self, model: str, loras: Sequence[Lora], seeds: Sequence[int | None], **more: Any) -> InferenceRequest:
        """Return the request for one video a seed.

        Raises:
            UsageError: a value is out of its limits; it names the option.
        """
        width, height = (None, None) if self.size is None else size_of(self.size)
        prompt = {
            "prompt": self.prompt,
            "neg": self.neg,
            "sample_steps": self.steps,
            "width": width,
            "height": height,
            "num_frames": self.frames,
            "fps": self.fps,
            "guidance_scale": self.guidance,
            "sampler": self.sampler,
            "shift": self.shift,
            "ctrl_img": self.image,
            "fit": self.fit,
            "output_format": self.output_format,
        }
        body = {
            "model": model,
            "loras": [lora.item() for lora in loras],
            "prompts": [_given({**prompt, "seed": seed}) for seed in seeds],
            "trigger_word": self.trigger,
            "recipe": self.recipe,
            "speed": self.speed,
            **more,
        }
        try:
            return InferenceRequest.model_validate(_given(body))
        except ValidationError as error:
            raise UsageError("; ".join(dict.fromkeys(_problem(one) for one in error.errors()))) from None


def size_of(text: str) -> tuple[int, int]:
    """Return (width, height) of `832x480`.

    Raises:
        UsageError: it is written otherwise.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"--size {text}: write width x height, such as 832x480")
    return int(found[1]), int(found[2])


def strength_of(text: str, option: str) -> float:
    """Return a LoRA's scale that is written as a number.

    Raises:
        UsageError: it is none.
    """
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{option} {text}: write a number, such as 0.8") from None


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


_OPTIONS = {
    "prompt": "the prompt",
    "trigger_word": "--trigger",
    "sample_steps": "--steps",
    "width": "--size",
    "height": "--size",
    "num_frames": "--frames",
    "guidance_scale": "--guidance",
    "network_multiplier": "--strength",
    "path": "--high or --low",
    "ctrl_img": "--image",
    "hf_token": "--hf-token",
}


def _problem(problem: Any) -> str:
    """Return one problem of pydantic's with the option that it comes from."""
    field = str(problem["loc"][-1])
    return f"{_OPTIONS.get(field, '--' + field)}: {problem['msg']} (got {problem['input']!r:.60})"
