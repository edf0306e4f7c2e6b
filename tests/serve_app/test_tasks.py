"""Tasks that outlive their caller, and waiting with a timeout."""

import asyncio
import contextvars

import pytest

from serve_app.tasks import detached, happened

request: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="none")


async def test_a_detached_task_knows_nothing_of_its_callers_context() -> None:
    async def ask() -> str:
        return request.get()

    request.set("a client's")
    assert await detached(ask()) == "none"
    assert await asyncio.create_task(ask()) == "a client's"


async def test_a_detached_task_outlives_its_caller() -> None:
    done = asyncio.Event()
    tasks = []

    async def work() -> None:
        await asyncio.sleep(0.01)
        done.set()

    async def caller() -> None:
        tasks.append(detached(work()))
        await asyncio.sleep(60)

    calling = asyncio.create_task(caller())
    await asyncio.sleep(0)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert await happened(done, within_s=1)


async def test_an_event_that_does_not_come_is_not_waited_for_longer() -> None:
    assert not await happened(asyncio.Event(), within_s=0.01)
