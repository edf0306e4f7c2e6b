"""Command `doctor`: the GPUs of this machine, how a model would lie on them, and what is missing for speed."""

import subprocess
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from serve_app.cli.console import Exit, JsonOption, UsageError, reporting
from serve_app.errors import ConfigurationInvalid
from serve_app.models.card import load_card
from serve_app.models.diagnosis import Diagnosis
from serve_app.settings import DEFAULT_MODEL

app = typer.Typer()

_MODULE = "deployments.wan.doctor"  # in a process of its own: nothing here may import PyTorch
_GIB = 2**30
_TERA = 1e12


@app.command(epilog="Example: wan-lora doctor --model wan22_5b")
@reporting
def doctor(
    *,
    model: Annotated[str, typer.Option(help="A model card: its id, or the path of its file.")] = DEFAULT_MODEL,
    as_json: JsonOption = False,
) -> None:
    """Show the GPUs, the memory plan, the least time of a step at three sizes, and what would make renders faster."""
    try:
        load_card(model)
    except ConfigurationInvalid as error:
        raise UsageError(str(error)) from error
    made = subprocess.run([sys.executable, "-m", _MODULE, model], stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603 - without a shell
    if made.returncode:
        raise typer.Exit(Exit.FAILED)  # what is wrong stands on stderr
    if as_json:
        typer.echo(made.stdout)
    else:
        _print(Diagnosis.model_validate_json(made.stdout))


def _print(found: Diagnosis) -> None:
    console = Console()
    console.print(
        f"[bold]{escape(found.model)}[/], PyTorch {found.torch}, {found.host_free / _GIB:.0f} GiB of RAM free"
    )
    for gpu in found.gpus:
        capability = ".".join(map(str, gpu.capability))
        console.print(
            f"{escape(gpu.name)}: {gpu.free / _GIB:.0f} of {gpu.total / _GIB:.0f} GiB free, capability {capability}"
        )
    if found.placement is not None:
        console.print(f"offload: auto takes [bold]{found.placement.offload}[/]: {escape(found.placement.reason)}")
        console.print(f"untouched weights of merged LoRAs: {found.placement.originals}")
    speed = f", at the {found.flops / _TERA:.0f} TFLOP/s of a plain matrix product" if found.flops else ""
    console.print(f"least seconds{speed}:")
    console.print(_sizes(found))
    for finding in found.findings:
        mark, rest = ("[green]yes[/]", finding.gives) if finding.found else ("[red]no[/] ", finding.missing)
        console.print(f"{mark} [bold]{escape(finding.name)}[/]: {escape(rest)}")


def _sizes(found: Diagnosis) -> Table:
    table = Table("size", "tokens", "a step", "a draft of 4 steps", "all GPUs would share it by")
    for size in found.sizes:
        step, draft = ("no GPU" if least is None else f"{least:.2f}" for least in (size.step_s, size.draft_s))
        table.add_row(size.size, str(size.tokens), step, draft, size.shared_by)
    return table
