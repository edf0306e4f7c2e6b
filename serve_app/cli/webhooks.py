"""Commands about webhooks: `webhook-secret`."""

import os
from typing import Annotated

import typer
from pydantic import SecretStr

from serve_app.cli.console import Exit
from serve_app.jobs.ownership import DEFAULT_TENANT
from serve_app.settings import ENVIRONMENT
from serve_app.webhooks.signing import secret_of

app = typer.Typer()


@app.command(epilog="Example: WEBHOOK_SECRET=... wan-lora webhook-secret team-a")
def webhook_secret(
    tenant: Annotated[str, typer.Argument(help="Whose webhooks it verifies.")] = DEFAULT_TENANT,
) -> None:
    """Print the secret with which a tenant's receivers verify webhooks, derived from WEBHOOK_SECRET."""
    name = ENVIRONMENT["webhook_secret"]
    master = os.environ.get(name)
    if not master:
        typer.echo(f"{name} is not set; set it to what the service has", err=True)
        raise typer.Exit(Exit.USAGE)
    typer.echo(secret_of(tenant, SecretStr(master)).get_secret_value())
