"""Coordination of processes through the job store: leader election by a lease, and notifications (LISTEN/NOTIFY).

Example:
    leadership = store.leadership(dispatcher_of("wan22_14b_t2v"))
    if await leadership.hold(lease_s=5, replicas=2):
        ...  # this process is the leader for the next 5 s; call `hold` again before they are over

    queued = asyncio.Event()
    listener = asyncio.create_task(listen(url, "wan22_14b_t2v", queued))  # only if store.notifies
"""

import asyncio
import logging
from time import time
from uuid import uuid4

import psycopg
from psycopg.conninfo import make_conninfo
from sqlalchemy import delete, or_, select

from serve_app.jobs.database import QUEUE_CHANNEL, Database
from serve_app.jobs.engines import SERVER_TIMEOUTS
from serve_app.jobs.revisions import OLDER, REVISION
from serve_app.jobs.tables import leaders

logger = logging.getLogger("ray.serve.wan")

# The role of a process that found that outputs cannot be stored. While it is held, no render is claimed.
OUTPUTS_FAIL = "outputs-fail"
# The role of the process that removes ended requests.
RETENTION = "retention"

_RECONNECT_S = 1.0


DISPATCHERS = "dispatcher:"
"""What the role of every Dispatcher begins with."""


def dispatcher_of(model: str) -> str:
    """Return the role of the process that dispatches the renders of that model."""
    return f"{DISPATCHERS}{model}"


class Leadership:
    """One candidate for a role that only one process may have. The lease is a row in the store."""

    def __init__(self, database: Database, role: str) -> None:
        self._database = database
        self._role = role
        self._holder = uuid4().hex

    async def hold(self, lease_s: float, replicas: int) -> bool:
        """Take or renew the lease and record the number of replicas; return False while another candidate holds it.

        The condition is in the WHERE clause (compare-and-set), so of two candidates one gets the lease. A candidate of
        an older version gives way at once: what the newer one writes, the older one may not be able to read.
        """
        row = {
            "role": self._role,
            "holder": self._holder,
            "expires_at": time() + lease_s,
            "replicas": replicas,
            "revision": REVISION,
        }
        insert = self._database.insert(leaders).values(row)
        own, older = leaders.c.holder == self._holder, leaders.c.revision.in_(OLDER)
        free = or_(own, older, leaders.c.expires_at < time())
        taken = insert.on_conflict_do_update(index_elements=["role"], set_=row, where=free).returning(leaders.c.holder)
        return await self._database.write(lambda connection: connection.execute(taken).first() is not None)

    async def resign(self) -> None:
        """Give up the lease, so that the next candidate need not wait for its end."""
        own = delete(leaders).where(leaders.c.role == self._role, leaders.c.holder == self._holder)
        await self._database.write(lambda connection: connection.execute(own))

    async def is_held(self) -> bool:
        """Return whether any candidate holds a lease that has not expired."""
        held = select(leaders.c.role).where(leaders.c.role == self._role, leaders.c.expires_at > time())
        return await self._database.read(lambda connection: connection.execute(held).first() is not None)


async def listen(url: str, model: str, heard: asyncio.Event) -> None:
    """Set `heard` at each notification that renders of that model were queued, until canceled.

    Also sets it after each connect, because notifications may have been missed before. Reconnects after errors.
    """
    address = make_conninfo(url, **SERVER_TIMEOUTS)
    while True:
        try:
            async with await psycopg.AsyncConnection.connect(address, autocommit=True) as connection:
                await connection.execute(f"LISTEN {QUEUE_CHANNEL}")
                heard.set()
                async for notification in connection.notifies():
                    if notification.payload == model:
                        heard.set()
        except psycopg.OperationalError as error:
            logger.warning("no notifications of new renders until the job store is back: %s", error)
        await asyncio.sleep(_RECONNECT_S)
