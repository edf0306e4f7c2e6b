"""What a person at the terminal sees of a start: what is served, where, and what to do next; not Ray's own lines.

Ray Serve keeps its logs in files then (`RAY_SERVE_LOG_TO_STDERR=0`), and `serve_app.logs` shows what this service says.
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
    """Have Serve log into files alone, and Ray tell of nothing but trouble, unless the environment says otherwise."""
    os.environ.setdefault(QUIET_VARIABLE, "0")


@contextmanager
def without_chatter() -> Iterator[None]:
    """Hide what Ray's command line prints of its progress while the block runs; errors go to standard error."""
    with open(os.devnull, "w") as nothing, redirect_stdout(nothing):  # noqa: PTH123 - a device, not a file
        yield


def ray_log_level() -> int:
    """Return from which level on Ray logs in this process, and set that of Serve."""
    if os.environ.get(QUIET_VARIABLE) != "0":
        return logging.INFO
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    return logging.ERROR


def say(text: str) -> None:
    """Print a line of ours."""
    print(f"==> {text}", file=sys.stderr, flush=True)  # noqa: T201 - what a person at the terminal reads


def say_ready(config: ServeConfig, logs: Path) -> None:
    """Print that the service is up, what it serves, and what to do next."""
    say(f"ready: {config.url} (API documentation: {config.url}/docs)")
    roots = ", ".join(dict.fromkeys(str(settings.lora_root) for settings in config.settings))
    lines = [
        *_served(config.url),
        f"the page   {config.url}/",
        f"LoRAs      from {roots}/ and from addresses (hf://, https://, s3://, ...)",
        "a video    wan-lora generate --help",
        f"logs       {logs}",
        "stop       Ctrl-C",
    ]
    for line in lines:
        print(f"    {line}", file=sys.stderr, flush=True)  # noqa: T201


def _served(url: str) -> list[str]:
    """Return a line for each model, and what its users must know."""
    try:
        answer = httpx2.get(f"{url}/health", timeout=_HEALTH_TIMEOUT_S, trust_env=False)
        health: dict[str, Any] = answer.json()
    except (httpx2.HTTPError, ValueError):
        return []  # the proxy listens elsewhere, or is not ours alone: the rest is true all the same
    models = health.get("models", [])
    notices = dict.fromkeys(model["notice"] for model in models if model["notice"])
    return [*(f"model      {model['model']} on {health['profile']}" for model in models), *notices]
