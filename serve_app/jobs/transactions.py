"""How a transaction, a function of a connection, runs without blocking the event loop."""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from sqlalchemy import URL, Connection, create_engine, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

# Of connections to a PostgreSQL server, in libpq's words: a host that drops packets must not hold requests for minutes.
SERVER_TIMEOUTS: Mapping[str, int] = {"connect_timeout": 5, "tcp_user_timeout": 10_000}  # s, ms

_THREADS = 4  # SQLite has one writer; the others read

# A plan that is kept must suit the table that is to come, not the empty one that is there when it is made.
_PLANNED_ONCE = "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c enable_sort=off"

Result = TypeVar("Result")


class Transactions(Protocol):
    """Runs them; what the driver raises comes out as it is."""

    async def read(self, work: Callable[[Connection], Result], *, planned_once: bool) -> Result:
        """What `work` returns, each of its statements on the newest commit; see `Database.read`."""

    async def write(self, work: Callable[[Connection], Result]) -> Result:
        """What `work` returns, once its writes are committed."""

    async def close(self) -> None:
        """Close every connection."""


class OnServer:
    """On a PostgreSQL server: on the event loop, which is free while the server is at a statement."""

    def __init__(self, url: URL) -> None:
        self._engine = _server_engine(url)
        self._planner_engine = _server_engine(url, options=_PLANNED_ONCE)
        self._reader = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        self._planner = self._planner_engine.execution_options(isolation_level="AUTOCOMMIT")

    async def read(self, work: Callable[[Connection], Result], *, planned_once: bool) -> Result:
        """As `Transactions` says."""
        async with (self._planner if planned_once else self._reader).connect() as connection:
            return await connection.run_sync(work)

    async def write(self, work: Callable[[Connection], Result]) -> Result:
        """As `Transactions` says."""
        async with self._engine.begin() as connection:
            return await connection.run_sync(work)

    async def close(self) -> None:
        """As `Transactions` says."""
        await self._engine.dispose()
        await self._planner_engine.dispose()


class InThreads:
    """On SQLite: each transaction as a whole in a thread, which costs a third of crossing over for every statement."""

    def __init__(self, url: URL) -> None:
        self._engine = create_engine(url)
        event.listen(self._engine, "connect", _prepare_sqlite)
        event.listen(self._engine, "begin", _begin_sqlite)
        self._reader = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        # Its own, so that no LoRA file that is being read holds up the queue.
        self._threads = ThreadPoolExecutor(_THREADS, "job-store")
        # SQLite has one writer at a time. In line here, writers of this process wait no longer than they must; at
        # SQLite's own lock they would sleep and try again, each in a thread that others could use.
        self._turn = asyncio.Lock()

    async def read(self, work: Callable[[Connection], Result], *, planned_once: bool) -> Result:
        """As `Transactions` says; SQLite plans a statement in no time."""
        return await self._in_thread(self._reader.connect, work)

    async def write(self, work: Callable[[Connection], Result]) -> Result:
        """As `Transactions` says."""
        async with self._turn:
            return await self._in_thread(self._engine.begin, work)

    async def close(self) -> None:
        """As `Transactions` says."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._threads.shutdown()
        self._engine.dispose()

    async def _in_thread(
        self, connect: Callable[[], AbstractContextManager[Connection]], work: Callable[[Connection], Result]
    ) -> Result:
        def run() -> Result:
            with connect() as connection:
                return work(connection)

        return await asyncio.get_running_loop().run_in_executor(self._threads, run)


def _server_engine(url: URL, **connect_args: str) -> AsyncEngine:
    return create_async_engine(
        url,
        # Saves a round trip after each read.
        skip_autocommit_rollback=True,
        # A connection from before a restart of the server is replaced, at the price of a round trip for each use.
        pool_pre_ping=True,
        connect_args={**SERVER_TIMEOUTS, **connect_args},
    )


def _prepare_sqlite(dbapi_connection: Any, _record: Any) -> None:
    dbapi_connection.isolation_level = None  # SQLAlchemy begins transactions; see _begin_sqlite
    cursor = dbapi_connection.cursor()
    cursor.execute("PRAGMA busy_timeout = 30000")
    # FULL: a commit has reached the disk when it returns, so an answered request outlives a power cut.
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    # What is deleted is overwritten: tokens of ended requests must not stay readable in the file.
    cursor.execute("PRAGMA secure_delete = ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
        # A write that began as a read cannot wait for another writer on SQLite; it fails at once.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
