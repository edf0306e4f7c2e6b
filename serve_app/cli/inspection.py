"""Command `inspect`: what LoRA files hold, on this machine and without a service."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from serve_app.errors import ServiceError, SingleLoraOnly
from serve_app.loras.adapter_files import beside_path
from serve_app.loras.formats import check_file
from serve_app.loras.formats.adapter_config import ADAPTER_FILE
from serve_app.loras.formats.norms import NormSummary
from serve_app.loras.inspection import inspect_file, warnings_of_pair
from serve_app.loras.report import FileReport
from serve_app.models.card import ModelCard, load_card
from serve_app.settings import DEFAULT_MODEL
from serve_app.spec import Expert

app = typer.Typer()


@app.command(epilog="Example: wan-lora inspect my_high_noise.safetensors my_low_noise.safetensors")
def inspect(
    high: Annotated[Path, typer.Argument(help="The file for the high noise expert, or the only file.")],
    low: Annotated[Path | None, typer.Argument(help="The file for the low noise expert.")] = None,
    *,
    model: Annotated[str, typer.Option(help="A model card: its id, or the path of its file.")] = DEFAULT_MODEL,
    norms: Annotated[bool, typer.Option("--norms", help="Also how strongly each layer is changed (slower).")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    experts: Annotated[
        Path | None, typer.Option(help="A checkpoint directory whose experts have other sizes than the card says.")
    ] = None,
) -> None:
    """Show what a pair holds, which side each file looks like, and which recipe shows it as its previews did.

    All values are read, and NaN among them is an error.
    """
    sides = [(Expert.HIGH, high), (Expert.LOW, low)] if low else [(None, high)]
    try:
        card = _card(model, experts, len(sides))
        reports = [_inspect(path, card, expert, norms=norms) for expert, path in sides]
    except (ServiceError, OSError) as error:
        Console(stderr=True).print(f"[bold red]error:[/] {escape(str(error))}")
        raise typer.Exit(1) from None
    warnings = warnings_of_pair(*reports) if low else []
    if as_json:
        files = [report.model_dump(mode="json") for report in reports]
        typer.echo(json.dumps({"files": files, "warnings": warnings}, indent=2))
    else:
        _print(reports, warnings)


def _inspect(path: Path, card: ModelCard, expert: Expert | None, *, norms: bool) -> FileReport:
    beside = beside_path(path.with_name(ADAPTER_FILE), path.name, str(path))
    # A report comes from the header, which knows of no NaN.
    check_file(path, card.architecture, str(path), strict=False, beside=beside)
    return inspect_file(path, str(path), card, expert=expert, strict=False, norms=norms, beside=beside)


def _card(model: str, experts: Path | None, files: int) -> ModelCard:
    card = load_card(model)
    if files > len(card.experts):
        raise SingleLoraOnly(f"{card.title} has one expert: inspect one file at a time")
    return card if experts is None else card.of_checkpoint(str(experts.absolute()))


def _print(reports: list[FileReport], warnings: list[str]) -> None:
    console = Console()
    table = Table(show_header=True, header_style="bold")
    table.add_column("")
    for report in reports:
        table.add_column(escape(report.file_name), overflow="fold")
    rows = [_rows(report) for report in reports]
    for label in dict.fromkeys(label for row in rows for label in row):
        table.add_row(label, *(escape(row.get(label, "-")) for row in rows))
    console.print(table)
    for warning in dict.fromkeys([*(warning for report in reports for warning in report.warnings), *warnings]):
        console.print(f"[bold yellow]warning:[/] {escape(warning)}")


def _rows(report: FileReport) -> dict[str, str]:
    rows = {
        "layout": f"{report.layout.value}, both experts" if report.combined else report.layout.value,
        "dtype": ", ".join(f"{count} {dtype}" for dtype, count in report.dtypes.items()),
        "size": f"{report.size / 1e6:.1f} MB, {report.tensors} tensors",
        "trained": _trained(report),
        "base model": report.base_model or "not said",
        "likely side": report.likely_side.value if report.likely_side else "not said",
        "recommended": _advice(report),
    }
    for part in report.parts:
        name = f"{part.expert.value}: " if part.expert else ""
        rows[f"{name}changes"] = ", ".join(f"{count} {kind}" for kind, count in part.kinds.items())
        rows[f"{name}layers"] = ", ".join(f"{count} {family.value}" for family, count in part.families.items())
        rows[f"{name}blocks"] = part.blocks or "none"
        rows[f"{name}rank"] = ", ".join(map(str, part.ranks.distinct)) if part.ranks else "-"
    if report.scales:
        rows["alpha / rank"] = f"{report.scales.min:g} to {report.scales.max:g}"
    rows |= {f"norm of {family.value}": _norm(norm) for family, norm in (report.norms or {}).items()}
    return rows


def _trained(report: FileReport) -> str:
    parts = [report.trainer or "by an unknown trainer"]
    parts += [
        f"{what} {count}"
        for what, count in (("step", report.trained_step), ("epoch", report.trained_epoch))
        if count is not None
    ]
    return ", ".join(parts)


def _advice(report: FileReport) -> str:
    advice = report.recommended
    shift = "" if advice.shift is None else f", shift {advice.shift:g}"
    return f"recipe {advice.recipe.value} ({advice.sampler.value}{shift})"


def _norm(norm: NormSummary) -> str:
    return f"{norm.min:.3g} / {norm.median:.3g} / {norm.max:.3g} (largest: {norm.largest})"
