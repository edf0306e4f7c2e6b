"""`wan-lora sweep`: retention once, now, or what it would remove."""

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from serve_app.cli.console import JsonOption, print_json, reporting, say
from serve_app.cli.database import DEFAULT_CONFIG, ConfigOption, in_store, settings_of

if TYPE_CHECKING:
    from serve_app.jobs.store import JobStore
    from serve_app.retention.sweeper import SweepReport

app = typer.Typer()


@app.command(epilog="Example: wan-lora sweep --dry-run")
@reporting
def sweep(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Remove what is beyond the args retention_days and retention_gib, and files that no request knows.

    It may run beside the service, and does so whatever the arg `retention` says.
    """
    # Imported here: SQLAlchemy and obstore are slow to import.
    from serve_app.outputs import OutputStore  # noqa: PLC0415
    from serve_app.retention.rules import RetentionRules  # noqa: PLC0415
    from serve_app.retention.sweeper import Sweeper  # noqa: PLC0415

    settings = settings_of(config)

    async def once(store: "JobStore") -> "SweepReport":
        outputs = OutputStore.from_url(settings.output_url, make=False)
        return await Sweeper(store, outputs).sweep(RetentionRules.of(settings), dry_run=dry_run)

    report = in_store(settings, once)
    if as_json:
        print_json(dataclasses.asdict(report))
        return
    say(str(report))
    for name in report.orphan_names:
        typer.echo(f"no request knows {name}")
    for name in report.missing_names:
        typer.echo(f"no file for {name}")
