"""Detached asyncio tasks, and waiting for an event with a timeout."""

import asyncio
import contextvars
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


def detached(coroutine: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
    """Start a task in an empty context, so that it is not canceled with its caller.

    Ray Serve keeps the current HTTP request in a context variable. When the client disconnects, it cancels everything
    that was started in that context. A task that other callers need, or that must complete, starts without the context.
    Keep a reference to the task: the event loop holds it only weakly.
    """
    return asyncio.get_running_loop().create_task(coroutine, context=contextvars.Context())


async def happened(event: asyncio.Event, within_s: float) -> bool:
    """Wait at most `within_s` seconds for `event`; return whether it is set."""
    try:
        await asyncio.wait_for(event.wait(), within_s)
    except TimeoutError:
        return False
    return True
