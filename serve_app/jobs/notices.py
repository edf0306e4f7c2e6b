"""Hearing from a PostgreSQL server that renders were queued, whichever process queued them."""

import asyncio
import logging

import psycopg
from psycopg.conninfo import make_conninfo

from serve_app.jobs.database import QUEUE_CHANNEL
from serve_app.jobs.transactions import SERVER_TIMEOUTS

logger = logging.getLogger("ray.serve")

_RECONNECT_S = 1.0


async def listen(url: str, heard: asyncio.Event) -> None:
    """Set `heard` at every notice, for ever; also at each (re)connection, since notices may have been missed."""
    address = make_conninfo(url, **SERVER_TIMEOUTS)
    while True:
        try:
            async with await psycopg.AsyncConnection.connect(address, autocommit=True) as connection:
                await connection.execute(f"LISTEN {QUEUE_CHANNEL}")
                heard.set()
                async for _ in connection.notifies():
                    heard.set()
        except psycopg.OperationalError as error:
            logger.warning("no notices of new renders until the job store is back: %s", error)
        await asyncio.sleep(_RECONNECT_S)
