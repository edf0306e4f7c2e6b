"""Commands of who runs the service: `serve` and `download`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from serve_app.errors import ConfigurationInvalid
from serve_app.models.card import load_card

app = typer.Typer()


@app.command(epilog="Example: wan-lora serve serve_config.yaml")
def serve(
    config: Annotated[Path, typer.Argument(help="A Serve config file.")] = Path("serve_config.yaml"),
    *,
    dashboard: Annotated[
        bool,
        typer.Option(
            "--dashboard",
            help="Start Ray's dashboard, too: `serve status` and `serve deploy` talk to it. Takes seconds.",
        ),
    ] = False,
) -> None:
    """Check the config, the port, the database and the folders; then run the service until Ctrl-C.

    As `serve run`, but a service that cannot start ends with status 1 and a line that says what to do.
    """
    # Imported here: Ray takes seconds to import, and no other command needs it.
    from serve_app.launch.supervisor import serve as supervise  # noqa: PLC0415

    raise typer.Exit(supervise(config, dashboard=dashboard))


@app.command(epilog="Example: wan-lora download wan22_14b_t2v wan22_5b")
def download(
    models: Annotated[list[str], typer.Argument(help="Model cards: their ids, or the paths of their files.")],
    *,
    endpoint: Annotated[str | None, typer.Option(help="A mirror of the Hugging Face Hub.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Where to; the Hub's own cache, which is set by HF_HOME.")] = None,
) -> None:
    """Download the weights of models before they are served: tens of GB each, resumed and verified.

    Each part comes from the repository that the card names. HF_TOKEN opens gated and private ones.
    """
    # Imported here: the Hub's client takes a moment to import, and no other command needs it.
    from serve_app.models import download as downloads  # noqa: PLC0415

    console = Console(stderr=True)
    hub = downloads.Hub(endpoint, cache)
    try:
        for wanted in dict.fromkeys(
            files for model in models for files in downloads.checkpoint_files(load_card(model))
        ):
            console.print(f"[bold]{escape(wanted.repository)}[/]")
            typer.echo(downloads.download(wanted, hub))
    except ConfigurationInvalid as error:
        console.print(f"[bold red]error:[/] {escape(str(error))}")
        raise typer.Exit(1) from None
