"""Commands about the service's LoRA files: `loras` and `upload`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from serve_app.api.schemas.loras import LoraFile, LoraPair
from serve_app.cli.bundles import bundled
from serve_app.cli.console import JsonOption, print_json, reporting, show, table
from serve_app.cli.server import Service

app = typer.Typer()


@app.command(epilog="Example: wan-lora loras my_job")
@reporting
@bundled
def loras(
    text: Annotated[str, typer.Argument(help="Only what has this in its path.")] = "",
    *,
    service: Service,
    as_json: JsonOption = False,
) -> None:
    """List the pairs and files that requests may name."""
    with service.connect() as client:
        found = client.loras()
    pairs = [pair for pair in found.pairs if any(text in path for path in _paths(pair))]
    in_pairs = {path for pair in found.pairs for path in _paths(pair)}
    single = [file for file in found.files if text in file.path and file.path not in in_pairs]
    if as_json:
        print_json(found.model_copy(update={"pairs": pairs, "files": [f for f in found.files if text in f.path]}))
        return
    rows = table("name", "step", "rank", "model", "files")
    for pair in pairs:
        _row(rows, pair.name, pair.high or pair.low, step=pair.step, models=pair.models, paths=_paths(pair))
    for file in single:
        _row(rows, file.name, file, step=file.step, models=file.models, paths=[file.path])
    show(rows)


def _paths(pair: LoraPair) -> list[str]:
    return list(dict.fromkeys(file.path for file in (pair.high, pair.low) if file is not None))


def _row(
    rows: Table, name: str, file: LoraFile | None, *, step: int | None, models: list[str], paths: list[str]
) -> None:
    rank = file.rank if file is not None else None
    told = ("-" if value is None else str(value) for value in (step, rank))
    rows.add_row(escape(name), *told, escape(", ".join(models)) or "-", escape("\n".join(paths)))


@app.command(epilog="Example: wan-lora upload my_high_noise.safetensors my_low_noise.safetensors --to my_job")
@reporting
@bundled
def upload(
    files: Annotated[list[Path], typer.Argument(help="LoRA files here.")],
    *,
    to: Annotated[str, typer.Option("--to", help="Folder on the service.")] = "uploads",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
    service: Service,
    as_json: JsonOption = False,
) -> None:
    """Upload LoRA files, where the service allows it; it checks each before it keeps it."""
    with service.connect() as client:
        kept = [client.upload(file, f"{to.strip('/')}/{file.name}", overwrite=overwrite) for file in files]
    if as_json:
        print_json({"files": [file.model_dump(mode="json") for file in kept]})
    else:
        for file in kept:
            typer.echo(file.path)
