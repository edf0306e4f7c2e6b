"""The command line against the real API on loopback."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from serve_app.cli import app
from tests.client import pair
from tests.fixtures.api import Api
from tests.fixtures.loopback import loopback

HIGH, LOW = (lora["path"] for lora in pair())
SMALL = ("--size", "64x64", "--frames", "5", "--steps", "4", "--high", HIGH, "--low", LOW)

WanLora = Callable[..., Awaitable[Result]]


@pytest.fixture
async def wan_lora(api: Api) -> AsyncIterator[WanLora]:
    """Run `wan-lora` with these arguments, beside the API."""
    async with beside(api) as run:
        yield run


@asynccontextmanager
async def beside(api: Api) -> AsyncIterator[WanLora]:
    """Run `wan-lora` beside any API."""
    async with loopback(api.app) as url:

        async def run(*args: str | Path, **environment: str) -> Result:
            env = {"WAN_SERVER": url, "COLUMNS": "200", "TERM": "dumb", **environment}
            return await asyncio.to_thread(CliRunner().invoke, app, [*map(str, args)], env=env)

        yield run
