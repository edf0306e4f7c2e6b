"""Command `compare`: which settings explain that a render does not look like the training preview."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from serve_app.cli.bundles import bundled
from serve_app.cli.console import JsonOption, UsageError, print_json, reporting, say, show, table
from serve_app.cli.server import Service
from serve_app.client import Client, InferenceRequest
from serve_app.clips.reading import Clip, NotAVideo, read_clip
from serve_app.spec import OutputFormat, Recipe, Sampler
from serve_app.videos.comparison import SAME_DB, Difference, compare
from serve_app.videos.explanation import Finding, explain
from serve_app.videos.settings import differing, read_settings

app = typer.Typer()

Settings = dict[str, tuple[object, object]]


@dataclass(frozen=True)
class Trial:
    """Another render of the output's request, and how near to the preview it came."""

    recipe: Recipe
    sampler: Sampler
    mean_psnr: float


@app.command(name="compare", epilog="Example: wan-lora compare samples/1234__000000500_0.webp dance.mp4 --try")
@reporting
@bundled
def compare_files(
    preview: Annotated[Path, typer.Argument(help="What it should look like: mp4, webp, gif, or a ZIP of PNG.")],
    output: Annotated[Path, typer.Argument(help="What came out.")],
    *,
    trying: Annotated[
        bool, typer.Option("--try", help="Render OUTPUT's request with each recipe and sampler; say which is nearest.")
    ] = False,
    service: Service,
    as_json: JsonOption = False,
) -> None:
    """Say which settings explain the difference of two video files.

    Compared are size, length, rate and pictures (PSNR of each frame, shift in time, mirrored), and the settings that
    the service embeds in its files.
    """
    clips = [_read(path) for path in (preview, output)]
    difference = compare(*clips)
    of_preview, of_output = read_settings(preview), read_settings(output)
    settings = differing(of_preview, of_output) if of_preview and of_output else {}
    findings = explain(difference, settings)
    trials = _tried(service.connect(), clips[0], of_output, output) if trying else []
    if as_json:
        print_json(_document(difference, findings, settings, trials))
    else:
        _print(difference, findings, settings, trials)


def _read(path: Path) -> Clip:
    try:
        return read_clip(path)
    except NotAVideo as error:
        raise UsageError(str(error)) from None


def _tried(client: Client, preview: Clip, request: InferenceRequest | None, output: Path) -> list[Trial]:
    """Return the trials, the nearest first; they have the preview's size and length."""
    if request is None:
        raise UsageError(f"--try: {output} has no settings in it; give a file that this service has made, unchanged")
    width, height = preview.size
    prompt = request.prompts[0].model_copy(
        update={
            "width": width,
            "height": height,
            "num_frames": len(preview.frames),
            "output_format": OutputFormat.PNG,
            "shift": None,
        }
    )
    with client, TemporaryDirectory() as directory:
        trials = []
        for recipe in (Recipe.REFERENCE, Recipe.PREVIEW):  # a draft equals no preview
            for sampler in Sampler:
                say(f"rendering with recipe {recipe.value} and sampler {sampler.value}")
                tried = request.model_copy(
                    update={"recipe": recipe, "prompts": [prompt.model_copy(update={"sampler": sampler})]}
                )
                clip = _rendered(client, tried, Path(directory) / f"{recipe.value}-{sampler.value}.zip")
                trials.append(Trial(recipe, sampler, compare(preview, clip).mean_psnr))
    return sorted(trials, key=lambda trial: trial.mean_psnr, reverse=True)


def _rendered(client: Client, request: InferenceRequest, path: Path) -> Clip:
    result = client.render(request)
    (video,) = result.outputs.videos if result.outputs else []
    return read_clip(client.download(video, path))


def _document(
    difference: Difference, findings: Sequence[Finding], settings: Settings, trials: Sequence[Trial]
) -> dict[str, object]:
    return {
        "alike": not findings,
        "findings": [asdict(finding) for finding in findings],
        "difference": {**asdict(difference), "mean_psnr": difference.mean_psnr},
        "settings": {name: {"preview": first, "output": second} for name, (first, second) in settings.items()},
        "trials": [asdict(trial) for trial in trials],
    }


def _print(difference: Difference, findings: Sequence[Finding], settings: Settings, trials: Sequence[Trial]) -> None:
    console = Console()
    rows = table("", "preview", "output")
    rows.add_row("size", *(f"{width}x{height}" for width, height in difference.sizes))
    rows.add_row("frames", *map(str, difference.lengths))
    rows.add_row("frames a second", *("-" if rate is None else f"{rate:.4g}" for rate in difference.rates))
    for name, values in settings.items():
        rows.add_row(escape(name), *(escape(str(value)) for value in values))
    show(rows)
    console.print(
        f"pictures: {difference.mean_psnr:.1f} dB on average, {min(difference.psnr):.1f} at worst, of "
        f"{len(difference.psnr)} frames ({SAME_DB:g} and more: the same frames)"
    )
    for finding in findings:
        console.print(f"[bold]{finding.setting}:[/] {escape(finding.text)}", soft_wrap=True)
    if not findings:
        console.print("Both show the same.")
    for number, trial in enumerate(trials):
        nearest = " (the nearest)" if number == 0 else ""
        console.print(f"recipe {trial.recipe.value}, sampler {trial.sampler.value}: {trial.mean_psnr:.1f} dB{nearest}")
