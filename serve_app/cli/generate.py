"""Command `generate`: a prompt and LoRAs in, video files out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from serve_app.cli.bundles import bundled
from serve_app.cli.console import JsonOption, UsageError, print_json, reporting, say, warn
from serve_app.cli.local_files import lora_path, prepare
from serve_app.cli.options import Look, Lora
from serve_app.cli.progress import Bars, duration
from serve_app.cli.server import Service
from serve_app.client import Client, Done, InferenceRequest, Preview, RequestForecast, RequestResult, Side
from serve_app.client.events import picture_of
from serve_app.client.failures import failure_of
from serve_app.spec import OutputFormat, Priority

app = typer.Typer()

_FORMATS = {".mp4": OutputFormat.MP4, ".webp": OutputFormat.WEBP, ".zip": OutputFormat.PNG}


@app.command(
    epilog=r'Example: wan-lora generate "\[trigger] dancing" --trigger sks --high my_high.safetensors '
    "--low my_low.safetensors -o dance.mp4"
)
@reporting
@bundled
def generate(
    *,
    look: Look,
    high: Annotated[
        str | None, typer.Option("--high", help="The LoRA for high noise: a file here, or as the API takes it.")
    ] = None,
    low: Annotated[str | None, typer.Option("--low", help="The LoRA for low noise.")] = None,
    lora: Annotated[
        str | None, typer.Option("--lora", help="The only LoRA: of both experts, or for a model with one.")
    ] = None,
    strength: Annotated[float, typer.Option("--strength", help="Scale of the LoRAs, -2 to 2.")] = 1.0,
    high_strength: Annotated[float | None, typer.Option("--high-strength", help="Scale of --high alone.")] = None,
    low_strength: Annotated[float | None, typer.Option("--low-strength", help="Scale of --low alone.")] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help=".mp4, .webp, or .zip for lossless frames.")] = None,
    count: Annotated[
        int, typer.Option("--count", min=1, max=100, help="Videos, with this seed and the next ones.")
    ] = 1,
    preview: Annotated[bool, typer.Option("--preview", help="Keep OUT.preview.webp while it renders.")] = False,
    priority: Annotated[Priority, typer.Option("--priority", help="Beside your other requests.")] = Priority.NORMAL,
    hf_token: Annotated[
        str | None, typer.Option("--hf-token", help="For private repositories; forgotten afterwards.")
    ] = None,
    cost: Annotated[bool, typer.Option("--cost", help="Say how long it would take, and make nothing.")] = False,
    service: Service,
    as_json: JsonOption = False,
) -> None:
    """Make a video, and download it.

    LoRAs and images that are files here are sent along. Ctrl-C leaves the request with the service, which goes on.
    """
    image, output_format = look.read_image(), _format(out)
    if out is not None:
        prepare(out)
    with service.connect() as client:
        loras = loras_of(client, high=high, low=low, lora=lora, strengths=(strength, high_strength, low_strength))
        request = look.on(client).request(
            loras, _seeds(look.seed, count), image=image, output_format=output_format,
            preview=preview or None, priority=priority, hf_token=hf_token,
        )  # fmt: skip
        if cost:
            _tell_cost(client.forecast(request), as_json)
            return
        result = _render(client, request, out, preview=preview)
        files = _download(client, result, out)
    if as_json:
        print_json({"files": [str(file) for file in files], "result": result.model_dump(mode="json")})
    else:
        for file in files:
            typer.echo(file)


def _tell_cost(forecast: RequestForecast, as_json: bool) -> None:
    if as_json:
        print_json(forecast)
        return
    for prompt in forecast.prompts:
        typer.echo(f"{prompt.width}x{prompt.height}, {prompt.num_frames} frames: {duration(prompt.seconds)}")
    if forecast.eta_seconds is not None:
        typer.echo(f"done in {duration(forecast.eta_seconds)}, behind what is queued now")
    warn([warning for prompt in forecast.prompts for warning in prompt.warnings])


def loras_of(
    client: Client,
    *,
    high: str | None,
    low: str | None,
    lora: str | None,
    strengths: tuple[float, float | None, float | None],
) -> list[Lora]:
    """Return the LoRAs that the options name; files here are uploaded. `strengths`: of all, of high, of low."""
    if lora is not None and (high is not None or low is not None):
        raise UsageError("--lora is the only LoRA; write --high and --low for a pair")
    if lora is None and high is None and low is None:
        raise UsageError("no LoRA: write --high HIGH --low LOW, or --lora FILE; `wan-lora loras` lists what is there")
    both, of_high, of_low = strengths
    named = [
        (high, Side.HIGH, both if of_high is None else of_high),
        (low, Side.LOW, both if of_low is None else of_low),
        (lora, None, both),
    ]
    return [Lora(lora_path(client, path), side, strength) for path, side, strength in named if path is not None]


def _render(client: Client, request: InferenceRequest, out: Path | None, *, preview: bool) -> RequestResult:
    """Return the result of a request, whose progress is shown on the way; with `preview` also what it becomes.

    Raises:
        ServiceError: it was refused, or failed.
    """
    accepted = client.submit(request)
    try:
        _follow(client, accepted.request_id, _base(out, accepted.request_id) if preview else None)
    except KeyboardInterrupt:
        say(f"\nthe request goes on; `wan-lora watch {accepted.request_id}` shows it, `wan-lora cancel` ends it")
        raise
    result = client.result(accepted.request_id)
    warn([warning for made in (result.metadata.prompts if result.metadata else []) for warning in made.warnings])
    return result


def _follow(client: Client, request_id: str, preview_of: Path | None) -> None:
    with Bars() as bars:
        bar = bars.add(request_id[:8])
        for event in client.events(request_id):
            bar.show(event)
            if isinstance(event, Preview) and preview_of is not None:
                _keep(picture_of(event), preview_path(preview_of))
    if preview_of is not None:
        preview_path(preview_of).unlink(missing_ok=True)
    if isinstance(event, Done) and (failure := failure_of(event.status)) is not None:
        raise failure


def _keep(content: bytes, path: Path) -> None:
    """Write a file that a viewer may have open: it sees the old content or the new one."""
    part = path.with_suffix(".part")
    part.write_bytes(content)
    part.replace(path)


def preview_path(out: Path) -> Path:
    """Return where the preview of a video lies while it renders."""
    return out.with_name(f"{out.stem}.preview.webp")


def _seeds(seed: int | None, count: int) -> Sequence[int | None]:
    """Return a seed for each video; None leaves it to the service, which gives each prompt the next one."""
    return [None] * count if seed is None else [seed if seed < 0 else seed + number for number in range(count)]


def _format(out: Path | None) -> OutputFormat:
    if out is None:
        return OutputFormat.MP4
    if out.suffix.lower() not in _FORMATS:
        raise UsageError(f"-o {out}: the name must end in {', '.join(_FORMATS)}")
    return _FORMATS[out.suffix.lower()]


def _base(out: Path | None, request_id: str) -> Path:
    """Return the file that `--out` names; else one that is named by the request."""
    return out or Path(f"{request_id[:8]}.mp4")


def _download(client: Client, result: RequestResult, out: Path | None) -> list[Path]:
    videos = result.outputs.videos if result.outputs else []
    base = _base(out, result.request_id)
    names = (
        [base] if len(videos) == 1 else [base.with_name(f"{base.stem}-{video.seed}{base.suffix}") for video in videos]
    )
    return [client.download(video, name) for video, name in zip(videos, names, strict=True)]
