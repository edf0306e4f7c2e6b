"""Options that say what a video shows and how it is made, and the request that they become."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from serve_app.cli import local_files
from serve_app.cli.console import UsageError
from serve_app.client import Client, InferenceRequest, Side
from serve_app.spec import Fit, OutputFormat, Recipe, Sampler, Speed

_SIZE = re.compile(r"(\d{1,5})\s*[xX]\s*(\d{1,5})")


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
    """What a video shows and how it is made; a bundle of options (see `bundles`). None: the model's default counts."""

    prompt: Annotated[str, typer.Argument(help=r"What to show; \[trigger] stands for the trigger word.")]
    trigger: Annotated[str | None, typer.Option("--trigger", help=r"Replaces \[trigger] in the prompt.")] = None
    neg: Annotated[str | None, typer.Option("--neg", help="What not to show.")] = None
    steps: Annotated[int | None, typer.Option("--steps", help="Denoising steps.")] = None
    seed: Annotated[int | None, typer.Option("--seed", help="Of the noise; -1 draws one.")] = None
    size: Annotated[str | None, typer.Option("--size", help="Width x height in pixels.", metavar="832x480")] = None
    frames: Annotated[int | None, typer.Option("--frames", help="Frames of the video.")] = None
    fps: Annotated[int | None, typer.Option("--fps", help="Frames per second.")] = None
    guidance: Annotated[float | None, typer.Option("--guidance", help="Classifier-free guidance; 1 = none.")] = None
    recipe: Annotated[
        Recipe,
        typer.Option(
            "--recipe",
            help="reference: the reference server's frames; preview: the trainer's previews'; draft: in a few steps.",
        ),
    ] = Recipe.REFERENCE
    sampler: Annotated[Sampler | None, typer.Option("--sampler", help="The scheduler; the recipe's when omitted.")] = (
        None
    )
    shift: Annotated[float | None, typer.Option("--shift", help="Flow shift of the sampler.")] = None
    speed: Annotated[
        Speed | None, typer.Option("--speed", help="exact; fast: rounded otherwise; turbo: approximated.")
    ] = None
    model: Annotated[str | None, typer.Option("--model", help="Id of the model; the service's first when omitted.")] = (
        None
    )
    image: Annotated[
        str | None, typer.Option("--image", help="The image that the video starts from: a file here, or an address.")
    ] = None
    fit: Annotated[Fit | None, typer.Option("--fit", help="How the image gets the video's size.")] = None

    def read_image(self) -> str | None:
        """Return the control image as a request has it: a file here as a data URL.

        Raises:
            UsageError: it looks like a file here, and is none.
        """
        return None if self.image is None else local_files.image(self.image)

    def on(self, client: Client) -> "Look":
        """Return the same for the service's first model, where none is named."""
        return self if self.model is not None else replace(self, model=client.models().models[0].id)

    def request(
        self,
        loras: Sequence[Lora],
        seeds: Sequence[int | None],
        *,
        image: str | None,
        output_format: OutputFormat = OutputFormat.MP4,
        **more: Any,
    ) -> InferenceRequest:
        """Return the request for one video a seed. `image` is what `read_image` gave; `more` are further fields.

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
            "ctrl_img": image,
            "fit": self.fit,
            "output_format": output_format,
        }
        body = {
            "model": self.model,
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
