"""`wan-lora keys`: API keys are made, listed and revoked, in the job store of a service."""

from datetime import UTC, datetime
from time import time
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from serve_app.access.keys import ApiKey, Scope, new_key
from serve_app.cli.console import Exit, JsonOption, UsageError, print_json, reporting, say
from serve_app.cli.database import DEFAULT_CONFIG, ConfigOption, in_store, settings_of
from serve_app.errors import HeaderInvalid
from serve_app.jobs.ownership import checked_tenant

app = typer.Typer(no_args_is_help=True, help="API keys of a service.")

_DAY_S = 86_400
_NAME_LENGTH = 100
_SCOPES = (Scope.READ, Scope.SUBMIT)


@app.command(epilog="Example: wan-lora keys make studio --scope read --scope submit")
@reporting
def make(
    tenant: Annotated[str, typer.Argument(help="Whose key it is: requests, outputs and LoRAs belong to the tenant.")],
    *,
    name: Annotated[str, typer.Option(help="What it is for; for people.")] = "",
    scopes: Annotated[list[Scope] | None, typer.Option("--scope", help="read and submit when omitted.")] = None,
    days: Annotated[float | None, typer.Option(min=0.001, help="Until it expires; never when omitted.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Make a key and print it: once, since only a hash of it is kept."""
    if len(name) > _NAME_LENGTH:
        raise UsageError(f"--name must have at most {_NAME_LENGTH} characters")
    expires_at = None if days is None else time() + days * _DAY_S
    made = new_key(_tenant(tenant), name, scopes or _SCOPES, expires_at)
    in_store(settings_of(config), lambda store: store.keys.add(made.key))
    if as_json:
        print_json({**_document(made.key), "key": made.token})
        return
    say(f"The key of {tenant} ({', '.join(sorted(made.key.scopes))}); it cannot be shown again:")
    typer.echo(made.token)


@app.command("list", epilog="Example: wan-lora keys list studio")
@reporting
def list_keys(
    tenant: Annotated[str | None, typer.Option(help="Only those of one tenant.")] = None,
    *,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """List keys, also those that were revoked or have expired."""
    keys = in_store(settings_of(config), lambda store: store.keys.all(tenant))
    if as_json:
        print_json({"keys": [_document(key) for key in keys]})
        return
    table = Table("id", "tenant", "name", "scopes", "made", "last used", "state")
    for key in keys:
        said = (key.id, key.tenant, key.name, " ".join(sorted(key.scopes)))
        table.add_row(*map(escape, said), _day(key.created_at), _day(key.last_used_at), _state(key))
    Console().print(table)


@app.command(epilog="Example: wan-lora keys revoke KEY_ID")
@reporting
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `wan-lora keys list` shows it.")],
    *,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Revoke a key for good. Every Ingress refuses it within the arg `key_cache_s` (5 seconds)."""
    settings = settings_of(config)
    revoked = in_store(settings, lambda store: store.keys.revoke(key_id))
    if revoked is None:
        raise UsageError(f"no key has the id {key_id}; `wan-lora keys list` shows all")
    if as_json:
        print_json(_document(revoked))
    else:
        say(f"Revoked; the service refuses it within {settings.key_cache_s:g} s.")
    raise typer.Exit(Exit.DONE)


def _tenant(name: str) -> str:
    try:
        return checked_tenant(name)
    except HeaderInvalid:
        raise UsageError("TENANT must be 1 to 64 letters, digits or . _ : -") from None


def _document(key: ApiKey) -> dict[str, object]:
    times = {"created_at": key.created_at, "expires_at": key.expires_at, "revoked_at": key.revoked_at}
    return {
        "id": key.id,
        "tenant": key.tenant,
        "name": key.name,
        "scopes": sorted(key.scopes),
        **{name: _timestamp(at) for name, at in {**times, "last_used_at": key.last_used_at}.items()},
    }


def _timestamp(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _day(at: float | None) -> str:
    return "never" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")


def _state(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return "revoked"
    if not key.is_valid(time()):
        return "expired"
    return "good" if key.expires_at is None else f"good until {_day(key.expires_at)}"
