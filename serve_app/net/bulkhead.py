"""Bulkhead: a bounded pool of threads that wait for remote servers, with limits for each host and each sender.

Example:
    bulkhead = Bulkhead(ShareLimits())
    located = await bulkhead.run(partial(source.locate, reference), host="example.com:443", sender="team-a")

Each process has one, for all fetches while a client waits. The limits keep one slow host, or one sender with many
fetches, from occupying all threads.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import TypeVar

from serve_app.errors import TooManyFetches

Result = TypeVar("Result")

_PATIENCE_S = 0.5  # fetches from a fast server end within this time; waiting for those of a slow server does not help
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class ShareLimits:
    """How many fetches run at once: in all, from one host, and for one sender."""

    threads: int = 64
    per_host: int = 8
    per_sender: int = 40


class Bulkhead:
    """Runs blocking fetches in threads of its own. Thread-safe; call `run` in an event loop."""

    def __init__(self, limits: ShareLimits) -> None:
        self._limits = limits
        self._threads = ThreadPoolExecutor(limits.threads, "fetch")
        self._lock = Lock()
        self._taken = 0
        self._of_host: Counter[str] = Counter()
        self._of_sender: Counter[str] = Counter()
        self._waiting = 0

    async def run(self, work: Callable[[], Result], *, host: str | None, sender: str) -> Result:
        """Return the result of `work`, run in a thread; raise what it raises.

        `host` is the server that it waits for, None for a server that the operator trusts. A thread stays occupied
        until `work` ends, even if the caller is canceled.

        Raises:
            TooManyFetches: too many run, and none of them ended within half a second.
        """
        full = self._enter(host, sender)
        if full is not None:
            await self._wait(full, host, sender)
        running = self._threads.submit(work)
        running.add_done_callback(lambda _: self._leave(host, sender))
        return await asyncio.wrap_future(running)

    async def _wait(self, full: str, host: str | None, sender: str) -> None:
        if self._waiting >= self._limits.threads:
            raise _too_many(full)
        self._waiting += 1
        end = time.monotonic() + _PATIENCE_S
        try:
            while (still := self._enter(host, sender)) is not None:
                if time.monotonic() >= end:
                    raise _too_many(still)
                await asyncio.sleep(_POLL_S)
        finally:
            self._waiting -= 1

    def _enter(self, host: str | None, sender: str) -> str | None:
        """Take a thread and return None, or return why there is none."""
        limits = self._limits
        with self._lock:
            if host is not None and self._of_host.get(host, 0) >= limits.per_host:
                return f"{limits.per_host} files are being read from this host"
            if self._of_sender.get(sender, 0) >= limits.per_sender:
                return f"{limits.per_sender} files are being read for this sender"
            if self._taken >= limits.threads:
                return f"{limits.threads} files are being read"
            self._count(host, sender, 1)
        return None

    def _leave(self, host: str | None, sender: str) -> None:
        with self._lock:
            self._count(host, sender, -1)

    def _count(self, host: str | None, sender: str, more: int) -> None:
        self._taken += more
        for counter, key in ((self._of_host, host), (self._of_sender, sender)):
            if key is not None:
                counter[key] += more
                if not counter[key]:
                    del counter[key]  # clients choose hosts, so the counter would grow without limit


def host_of(address: str) -> str:
    """Return the server of `address`: its scheme, host and port, even if it is no valid URL.

    >>> host_of("https://user@Example.com:8443/file?query")
    'https://example.com:8443'
    """
    scheme, _, rest = address.strip().lower().partition("://")
    host = rest.replace("?", "/").replace("#", "/").partition("/")[0].rpartition("@")[2]
    return f"{scheme}://{host}"


def _too_many(full: str) -> TooManyFetches:
    return TooManyFetches(f"{full} already, which is as many as this service reads at once; retry later")
