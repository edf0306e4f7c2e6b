"""One service at work on a job store, without GPUs: it accepts, leads, renders and shows, until SIGTERM.

    python -m tests.serve_app.jobs.rollout URL TENANT

At its end it prints what it did, as JSON. It is run by the code of two versions at once; see test_rollout.py.
"""

import asyncio
import json
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass

from pydantic import ValidationError
from sqlalchemy import Connection, select

from serve_app.jobs.coordination import dispatcher_of
from serve_app.jobs.database import Database
from serve_app.jobs.records import Waiting
from serve_app.jobs.schema import migrate
from serve_app.jobs.store import JobStore
from serve_app.jobs.tables import requests
from tests.fixtures.specs import MODEL
from tests.fixtures.store import queued
from tests.serve_app.jobs.helpers import output, submit

LEASE_S = 2.0
ATTEMPTS = 10
_MOST_QUEUED = 10
_LATEST = 5


@dataclass
class Done:
    """What one service did."""

    accepted: int = 0
    succeeded: int = 0
    unreadable: int = 0  # claims on specs of a newer version
    shown: int = 0  # requests of the other version that were read


async def work(url: str, tenant: str, stopped: asyncio.Event) -> Done:
    """Do what Ingress, Dispatcher and Generators do with the store."""
    store, database, done = JobStore(url), Database(url), Done()
    leadership = store.leadership(dispatcher_of(MODEL))
    while not stopped.is_set():
        waiting = await queued(store)
        if len(waiting) < _MOST_QUEUED:
            await submit(store, tenant=tenant)
            done.accepted += 1
        if await leadership.hold(LEASE_S, 1):
            await render(store, tenant, waiting, done)
        for request_id in await database.read(lambda connection: _of_others(connection, tenant)):
            await store.requests.get(request_id)
            done.shown += 1
        await asyncio.sleep(0.02)
    await leadership.resign()
    await store.close()
    await database.close()
    return done


async def render(store: JobStore, tenant: str, waiting: Sequence[Waiting], done: Done) -> None:
    """Make renders, as one replica."""
    await store.claims.expire_leases(MODEL, ATTEMPTS)
    for one in waiting:
        try:
            claim = await store.claims.claim(one.render_id, tenant, LEASE_S)
        except ValidationError:
            done.unreadable += 1
            continue
        if claim is not None:
            await store.claims.renew(claim, 1, LEASE_S)
            done.succeeded += await store.claims.succeed(claim, output(claim))


def _of_others(connection: Connection, tenant: str) -> list[str]:
    query = select(requests.c.id).where(requests.c.tenant != tenant).order_by(requests.c.created_at.desc())
    return list(connection.execute(query.limit(_LATEST)).scalars())


async def main(url: str, tenant: str) -> None:
    """Work until SIGTERM."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    print(json.dumps(asdict(await work(url, tenant, stopped))))


if __name__ == "__main__":
    migrate(sys.argv[1])
    with suppress(KeyboardInterrupt):
        asyncio.run(main(sys.argv[1], sys.argv[2]))
