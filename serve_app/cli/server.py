"""Options that name the service: `--server`, `--key`, and how long to try."""

from typing import Annotated

import typer

from serve_app.client import Client

DEFAULT_SERVER = "http://127.0.0.1:8000"

ServerOption = Annotated[str, typer.Option("--server", envvar="WAN_SERVER", help="Where the service is.")]
KeyOption = Annotated[
    str | None, typer.Option("--key", envvar="WAN_API_KEY", help="The API key, where the service asks for one.")
]
PatienceOption = Annotated[
    float, typer.Option("--patience", min=0, help="Seconds to try again while the service is away or busy.")
]


def connect(server: str, key: str | None, patience_s: float) -> Client:
    """Return a client of the service that the options name."""
    return Client(server, key or None, patience_s=patience_s)
