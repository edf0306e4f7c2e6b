"""Command `grid`: checkpoints x strengths on one seed, as one HTML file with every video in it."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from serve_app.cli.bundles import bundled
from serve_app.cli.checkpoints import checkpoints_of
from serve_app.cli.console import Exit, JsonOption, UsageError, print_json, reporting, say
from serve_app.cli.local_files import prepare
from serve_app.cli.options import Look, strength_of
from serve_app.cli.progress import Bar, Bars
from serve_app.cli.server import Service
from serve_app.cli.sheet import Cell, sheet
from serve_app.client import AsyncClient, Done, InferenceRequest
from serve_app.client.failures import failure_of
from serve_app.errors import ServiceError

app = typer.Typer()


@dataclass(frozen=True)
class Planned:
    """One cell that is to be rendered."""

    row: str
    column: str
    request: InferenceRequest


@app.command(
    epilog=r'Example: wan-lora grid "\[trigger] dancing" --trigger sks --pair my_job@500 --pair my_job@1000 '
    "--strengths 0,0.5,1 -o grid.html"
)
@reporting
@bundled
def grid(
    *,
    look: Look,
    pair: Annotated[
        list[str],
        typer.Option("--pair", help="A row: NAME or NAME@STEP as in `wan-lora loras`, HIGH,LOW, or one file."),
    ],
    strengths: Annotated[str, typer.Option("--strengths", help="The columns: scales of the LoRAs.")] = "0,0.5,1",
    out: Annotated[Path, typer.Option("-o", "--out", help="The HTML file.")] = Path("grid.html"),
    service: Service,
    as_json: JsonOption = False,
) -> None:
    """Render checkpoints x strengths on one seed into one HTML file, whose videos play in step.

    Ctrl-C cancels what is not finished.
    """
    if look.seed is not None and look.seed < 0:
        raise UsageError("--seed: a grid needs one seed for all its cells; write one that is not negative")
    prepare(out)
    image, scales = look.read_image(), [strength_of(text, "--strengths") for text in strengths.split(",")]
    with service.connect() as client:
        look = look.on(client)
        planned = [
            Planned(
                checkpoint.name,
                f"strength {scale:g}",
                look.request(checkpoint.at(scale), [look.seed], image=image),
            )
            for checkpoint, scale in product(checkpoints_of(client, pair), scales)
        ]
    with TemporaryDirectory() as directory:
        cells = asyncio.run(_render(service.connect_async(), planned, Path(directory)))
        out.write_text(sheet(look.prompt, _used(planned[0].request), cells), encoding="utf-8")
    failed = [cell for cell in cells if cell.video is None]
    if as_json:
        print_json({"file": str(out), "cells": len(cells), "failed": [f"{cell.row}, {cell.column}" for cell in failed]})
    else:
        typer.echo(out)
    if failed:
        say(f"{len(failed)} of {len(cells)} cells failed; the sheet says why")
        raise typer.Exit(Exit.FAILED)


async def _render(client: AsyncClient, planned: Sequence[Planned], directory: Path) -> list[Cell]:
    """Return every cell once it has ended. All are queued first, so that the service sees what it may put together.

    Raises:
        ServiceError: one was refused; the others are canceled.
    """
    ids: list[str] = []
    async with client:
        try:
            for cell in planned:  # one by one: when one is refused, it is known which are to be canceled
                ids.append((await client.submit(cell.request)).request_id)  # noqa: PERF401
            with Bars() as bars:
                followed = [
                    _cell(client, cell, request_id, directory / f"{number}.mp4", bars.add(f"{cell.row}, {cell.column}"))
                    for number, (cell, request_id) in enumerate(zip(planned, ids, strict=True))
                ]
                return await asyncio.gather(*followed)
        except BaseException:
            await _cancel(client, ids)
            raise


async def _cell(client: AsyncClient, planned: Planned, request_id: str, path: Path, bar: Bar) -> Cell:
    failure: ServiceError | None = None
    async for event in client.events(request_id):
        bar.show(event)
        if isinstance(event, Done):
            failure = failure_of(event.status)
    if failure is not None:
        return Cell(row=planned.row, column=planned.column, video=None, caption=f"{failure.code}: {failure.message}")
    result = await client.result(request_id)
    (video,) = result.outputs.videos if result.outputs else []
    await client.download(video, path)
    return Cell(row=planned.row, column=planned.column, video=path, caption=f"seed {video.seed}, {request_id[:8]}")


async def _cancel(client: AsyncClient, ids: Sequence[str]) -> None:
    for request_id in ids:
        with suppress(ServiceError):  # of one that has ended, or a service that is away: the first error counts
            await client.cancel(request_id)


def _used(request: InferenceRequest) -> str:
    """Return what all cells have in common, in one line."""
    prompt = request.prompts[0].model_dump(
        mode="json", exclude_unset=True, exclude={"prompt", "ctrl_img", "output_format"}
    )
    common = {"model": request.model, "recipe": request.recipe.value, "trigger word": request.trigger_word, **prompt}
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in common.items() if value not in (None, ""))
