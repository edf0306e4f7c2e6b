"""The worker of the outbox (leader election by a lease): tells what is due, in one process of the service at a time.

Example:
    worker = WebhookWorker(store, settings, observers)
    task = detached(worker.run())   # in every Ingress; the one that holds the lease works

No render waits for it: it reads what the store has recorded, in threads of its own, and a receiver that hangs takes
`PER_HOST` of them at most.
"""

import asyncio
import logging
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

from pydantic import SecretStr

from serve_app.errors import ServiceError
from serve_app.jobs.outbox import Due
from serve_app.jobs.store import JobStore
from serve_app.net import ssl_context
from serve_app.observers import Observers
from serve_app.settings import Settings
from serve_app.tasks import detached
from serve_app.webhooks.delivery import deliver

logger = logging.getLogger("ray.serve.wan")

ROLE = "webhooks"
AT_ONCE = 32
PER_HOST = 4
_LEASE_S = 10.0


class WebhookWorker:
    """Delivers what the outbox has due while it holds the lease."""

    def __init__(self, store: JobStore, settings: Settings, observers: Observers, *, look_every_s: float = 1.0) -> None:
        self._store = store
        self._settings = settings
        self._observers = observers
        self._look_every_s = look_every_s
        self._leadership = store.leadership(ROLE)
        self._leads_until = 0.0
        self._under_way: dict[int, asyncio.Task[None]] = {}
        self._of_host: Counter[str] = Counter()
        self._threads = ThreadPoolExecutor(AT_ONCE, "webhook")
        self._context = ssl_context()

    async def run(self) -> None:
        """Work until canceled. Without the arg `webhook_secret` there is nothing to do."""
        master = self._settings.webhook_secret
        while master is not None:
            try:
                if await self._lead():
                    await self._start_due(master)
            except ServiceError as error:
                logger.warning("webhooks wait: %s", error)
            except Exception:
                logger.exception("webhooks could not be told; they are tried again")
            await asyncio.sleep(self._look_every_s)

    async def close(self) -> None:
        """Wait for what is under way, and give the lease up."""
        await asyncio.gather(*self._under_way.values(), return_exceptions=True)
        await self._leadership.resign()
        self._threads.shutdown(wait=False)

    async def _lead(self) -> bool:
        asked = monotonic()
        if self._leads_until - asked < _LEASE_S / 2 and await self._leadership.hold(_LEASE_S, 0):
            self._leads_until = asked + _LEASE_S
        return asked < self._leads_until

    async def _start_due(self, master: SecretStr) -> None:
        free = AT_ONCE - len(self._under_way)
        if free <= 0:
            return
        busy = [host for host, count in self._of_host.items() if count >= PER_HOST]
        for due in await self._store.outbox.due(limit=free, but_hosts=busy, but_ids=list(self._under_way)):
            if self._of_host[due.host] < PER_HOST:
                self._of_host[due.host] += 1
                self._under_way[due.id] = detached(self._tell(due, master))

    async def _tell(self, due: Due, master: SecretStr) -> None:
        try:
            attempt = await asyncio.get_running_loop().run_in_executor(
                self._threads, deliver, due, self._settings, master, self._context
            )
            await self._store.outbox.attempted(due, attempt)
            self._observers.told(attempt.state)
        except Exception as error:
            logger.warning("a webhook of request %s is tried again: %r", due.request_id, error)
        finally:
            del self._under_way[due.id]
            self._of_host[due.host] -= 1
            if not self._of_host[due.host]:
                del self._of_host[due.host]
