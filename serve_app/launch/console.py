"""Terminal output of a start: what is served, where, and what to do next, without Ray's own log lines.

Ray Serve then logs into files only (`RAY_SERVE_LOG_TO_STDERR=0`), and `serve_app.logs` shows this service's own lines.
"""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import httpx2

from serve_app.launch.preflight import ServeConfig
from serve_app.logs import QUIET_VARIABLE

_HEALTH_TIMEOUT_S = 10.0


def keep_quiet() -> None:
    """Make Serve log into files only, and Ray report warnings only, unless the environment says otherwise."""
    os.environ.setdefault(QUIET_VARIABLE, "0")


@contextmanager
def without_chatter() -> Iterator[None]:
    """Hide the progress messages of Ray's command line while the block runs; errors still go to standard error."""
    with open(os.devnull, "w") as nothing, redirect_stdout(nothing):  # noqa: PTH123 - a device, not a file
        yield


def ray_log_level() -> int:
    """Return the lowest level that Ray logs in this process, and set the one of Serve."""
    if os.environ.get(QUIET_VARIABLE) != "0":
        return logging.INFO
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    return logging.ERROR


def say(text: str) -> None:
    """Print a line to standard error, marked as this service's."""
    print(f"==> {text}", file=sys.stderr, flush=True)  # noqa: T201 - what a person at the terminal reads


def say_ready(config: ServeConfig, logs: Path, dashboard: str) -> None:
    """Print that the service is up, what it serves, and what to do next.

    `dashboard` is host and port of Ray's; empty if there is none.
    """
    say(f"ready: {config.url} (API documentation: {config.url}/docs)")
    roots = ", ".join(dict.fromkeys(str(settings.lora_root) for settings in config.settings))
    lines = [
        *_served(config.url),
        f"the page   {config.url}/",
        f"LoRAs      from {roots}/ and from addresses (hf://, https://, s3://, ...)",
        "a video    wan-lora generate --help",
        f"logs       {logs}",
        *([f"Ray        http://{dashboard}"] if dashboard else []),
        "stop       Ctrl-C",
    ]
    for line in lines:
        print(f"    {line}", file=sys.stderr, flush=True)  # noqa: T201


def _served(url: str) -> list[str]:
    """Return a line for each model, with its notice for users."""
    try:
        answer = httpx2.get(f"{url}/health", timeout=_HEALTH_TIMEOUT_S, trust_env=False)
        health: dict[str, Any] = answer.json()
    except (httpx2.HTTPError, ValueError):
        return []  # the proxy listens elsewhere or also serves other applications; the other lines are true anyway
    models = health.get("models", [])
    notices = dict.fromkeys(model["notice"] for model in models if model["notice"])
    return [*(f"model      {model['model']} on {health['profile']}" for model in models), *notices]
