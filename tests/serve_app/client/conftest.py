"""The API on loopback, with a Generator that the test plays."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, ParamSpec, TypeVar

import pytest

from serve_app.client import Client, InferenceRequest
from tests.client import body
from tests.fixtures.api import Api, ServeApi
from tests.fixtures.loopback import loopback

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def request_for(*prompts: dict[str, Any], **changes: Any) -> InferenceRequest:
    """As `tests.client.body`, typed."""
    return InferenceRequest.model_validate(body(*prompts, **changes))


async def in_thread(call: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
    """Call the synchronous client beside the server, which runs in this event loop."""
    return await asyncio.to_thread(call, *args, **kwargs)


@pytest.fixture
async def url(api: Api) -> AsyncIterator[str]:
    """Yield where the API listens."""
    async with loopback(api.app) as url:
        yield url


@pytest.fixture
async def remote(url: str) -> AsyncIterator[Client]:
    """Yield a synchronous client of the API."""
    with Client(url) as client:
        yield client


@asynccontextmanager
async def served(serve_api: ServeApi, **args: Any) -> AsyncIterator[tuple[Api, str]]:
    """Yield the API with other args, and where it listens."""
    async with serve_api(**args) as api, loopback(api.app) as url:
        yield api, url
