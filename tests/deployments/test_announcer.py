"""The announcer: calls to the Dispatcher that nobody waits for."""

import asyncio
import contextvars
from collections.abc import Awaitable

import pytest

from deployments import announcer as announcing
from deployments.announcer import DispatcherAnnouncer
from tests.deployments.conftest import until

client: contextvars.ContextVar[str] = contextvars.ContextVar("client", default="nobody")


class Method:
    """A method of a handle, which answers after a moment or not at all."""

    def __init__(self, *, fails: bool = False) -> None:
        self.calls: list[tuple[str, ...]] = []
        self.on_behalf_of: list[str] = []
        self._fails = fails

    def remote(self, *args: str) -> Awaitable[None]:
        self.calls.append(args)
        self.on_behalf_of.append(client.get())
        return self._answer()

    async def _answer(self) -> None:
        await asyncio.sleep(0)
        if self._fails:
            raise ConnectionError("the dispatcher is being replaced")


class Handle:
    def __init__(self, *, fails: bool = False) -> None:
        self.queued = Method(fails=fails)
        self.canceled = Method(fails=fails)


@pytest.fixture(autouse=True)
def short_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcing, "ANNOUNCE_EVERY_S", 0.05)


async def test_the_first_of_a_burst_is_reported_at_once_and_the_rest_in_one_call() -> None:
    handle = Handle()
    announcer = DispatcherAnnouncer(handle, of_renders=True)
    announcer.queued()
    for _ in range(3):
        await asyncio.sleep(0)  # no time passes, the tasks only take their turns
    assert len(handle.queued.calls) == 1
    for _ in range(100):
        announcer.queued()
    await until(lambda: len(handle.queued.calls) == 2)
    await asyncio.sleep(0.12)
    assert len(handle.queued.calls) == 2


async def test_where_the_database_itself_tells_only_cancels_are_told() -> None:
    handle = Handle()
    announcer = DispatcherAnnouncer(handle, of_renders=False)
    announcer.queued()
    announcer.canceled("r1")
    announcer.canceled("r2")
    await until(lambda: len(handle.canceled.calls) == 2)
    assert handle.canceled.calls == [("r1",), ("r2",)]
    assert handle.queued.calls == []


async def test_a_dispatcher_that_does_not_answer_is_told_of_the_next_news(
    caplog: pytest.LogCaptureFixture,
) -> None:
    handle = Handle(fails=True)
    announcer = DispatcherAnnouncer(handle, of_renders=True)
    announcer.canceled("r1")
    for count in (1, 2):
        announcer.queued()
        await until(lambda count=count: len(handle.queued.calls) == count)
    assert "it finds them at its next sweep" in caplog.text


async def test_no_call_hangs_on_the_request_that_caused_it() -> None:
    handle = Handle()
    announcer = DispatcherAnnouncer(handle, of_renders=True)
    client.set("a client that may disconnect")
    announcer.canceled("r1")
    announcer.queued()
    await until(lambda: handle.canceled.calls and handle.queued.calls)
    assert handle.canceled.on_behalf_of == ["nobody"]
