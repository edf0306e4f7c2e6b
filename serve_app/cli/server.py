"""Options that name the service: `--server`, `--key`, and how long to try."""

from dataclasses import dataclass
from typing import Annotated

import typer

from serve_app.client import AsyncClient, Client
from serve_app.client.retries import PATIENCE_S


@dataclass(frozen=True, kw_only=True)
class Service:
    """The service that a command calls; a bundle of options (see `bundles`)."""

    server: Annotated[str, typer.Option("--server", envvar="WAN_SERVER", help="Where the service is.")] = (
        "http://127.0.0.1:8000"
    )
    key: Annotated[
        str | None, typer.Option("--key", envvar="WAN_API_KEY", help="The API key, where the service asks for one.")
    ] = None
    patience: Annotated[
        float, typer.Option("--patience", min=0, help="Seconds to try again while the service is away or busy.")
    ] = PATIENCE_S

    def connect(self) -> Client:
        """Return a client of it."""
        return Client(self.server, self.key or None, patience_s=self.patience)

    def connect_async(self) -> AsyncClient:
        """Return an asynchronous client of it."""
        return AsyncClient(self.server, self.key or None, patience_s=self.patience)
