"""Secrets in the args of an application: Ray logs args, so a secret must come from an environment variable instead.

Example:
    held = secrets_in({"database_url": "postgresql://wan:hunter2@db/wan"})  # {"database_url": "postgresql://..."}
    refuse_secrets(args)  # raises ConfigurationInvalid
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from serve_app.errors import ConfigurationInvalid
from serve_app.settings import ENVIRONMENT

_PASSWORDS = ("password", "sslpassword")  # parameters of a PostgreSQL URL


def secrets_in(args: Mapping[str, Any]) -> dict[str, str]:
    """Return those args that hold a secret, with their values."""
    found = {arg: str(args[arg]) for arg in ("hf_token", "admin_key", "webhook_secret") if args.get(arg)}
    url = args.get("database_url")
    if isinstance(url, str) and _holds_password(url):
        found["database_url"] = url
    return found


def refuse_secrets(args: Mapping[str, Any]) -> None:
    """Raise ConfigurationInvalid if an arg holds a secret; it names the environment variable to use instead."""
    if held := secrets_in(args):
        variables = ", ".join(f"{arg} as {ENVIRONMENT[arg]}" for arg in held)
        raise ConfigurationInvalid(
            f"args of serve_config.yaml hold a secret, and Ray logs args. Remove it there and set {variables} in the "
            "environment of every Ray process; or start the service with `wan-lora serve`, which does so"
        )


def _holds_password(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.password) or any(name in parse_qs(parts.query) for name in _PASSWORDS)
    except ValueError:
        return True  # a URL that cannot be parsed may contain a password
