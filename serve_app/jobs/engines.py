"""Connections to SQLite and PostgreSQL (SQLAlchemy engines): how each of them runs a transaction without blocking.

Example:
    transactions = PostgresTransactions(with_driver("postgresql://wan@db/wan"))
    rows = await transactions.read(lambda connection: connection.execute(query).all(), generic_plan=False)

What is here raises the errors of the drivers; `serve_app.jobs.database` translates them.
"""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from sqlalchemy import URL, Connection, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from serve_app.jobs.sqlite_file import FileGuard, Opened

# libpq connection parameters: a host that drops packets must not hold requests for minutes.
SERVER_TIMEOUTS: Mapping[str, int] = {"connect_timeout": 5, "tcp_user_timeout": 10_000}  # s, ms

_OPENED = "opened"  # the key of a connection's open files in `connection.info`
_THREADS = 4  # SQLite has one writer; the other threads read

# A generic plan is kept for all later queues, so it must not be the one that suits the empty table of the first call.
_GENERIC_PLAN = "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c enable_sort=off"

Result = TypeVar("Result")


def with_driver(url: str) -> URL:
    """Return the URL with the driver that this service uses for that kind of database."""
    parsed = make_url(url)
    return parsed.set(drivername="sqlite" if parsed.get_backend_name() == "sqlite" else "postgresql+psycopg")


def connect_arguments(url: URL) -> dict[str, int]:
    """Return the parameters with which a connection to a server fails in seconds if it would hang."""
    return {} if url.get_backend_name() == "sqlite" else dict(SERVER_TIMEOUTS)


class Transactions(Protocol):
    """Runs transactions without blocking the event loop; raises what the driver raises."""

    async def read(self, work: Callable[[Connection], Result], *, generic_plan: bool) -> Result:
        """Run `work` in autocommit mode and return its result; see `Database.read`."""

    async def write(self, work: Callable[[Connection], Result]) -> Result:
        """Run `work` in one transaction, commit, and return its result."""

    async def close(self) -> None:
        """Close every connection."""


class PostgresTransactions:
    """Transactions on a PostgreSQL server, on the event loop, with an asynchronous driver."""

    def __init__(self, url: URL) -> None:
        self._engine = _server_engine(url)
        self._generic_engine = _server_engine(url, options=_GENERIC_PLAN)
        self._reader = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        self._generic = self._generic_engine.execution_options(isolation_level="AUTOCOMMIT")

    async def read(self, work: Callable[[Connection], Result], *, generic_plan: bool) -> Result:
        """See `Database.read`."""
        async with (self._generic if generic_plan else self._reader).connect() as connection:
            return await connection.run_sync(work)

    async def write(self, work: Callable[[Connection], Result]) -> Result:
        """See `Database.write`."""
        async with self._engine.begin() as connection:
            return await connection.run_sync(work)

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()
        await self._generic_engine.dispose()


class SqliteTransactions:
    """Transactions on SQLite: each runs as a whole in a thread, which costs a third of a switch for each statement."""

    def __init__(self, url: URL) -> None:
        self._engine = create_engine(url)
        self._guard = FileGuard(Path(url.database or ""))
        event.listen(self._engine, "do_connect", self._before_connect)
        event.listen(self._engine, "connect", _prepare_sqlite)
        event.listen(self._engine, "connect", self._connected)
        event.listen(self._engine, "begin", _begin_sqlite)
        self._reader = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        # Not the default executor, in which LoRA files are read: those must not delay the queue.
        self._threads = ThreadPoolExecutor(_THREADS, "job-store")
        # SQLite has one writer at a time. At SQLite's own lock the writers of this process would sleep and poll, and
        # each would occupy a thread. A writer that waits for this lock occupies no thread, and starts without delay.
        self._writer = asyncio.Lock()

    async def read(self, work: Callable[[Connection], Result], *, generic_plan: bool) -> Result:
        """See `Database.read`. SQLite plans a statement in microseconds, so `generic_plan` changes nothing."""
        return await self._in_thread(self._reader.connect, work)

    async def write(self, work: Callable[[Connection], Result]) -> Result:
        """See `Database.write`."""
        async with self._writer:
            return await self._in_thread(self._engine.begin, work)

    async def close(self) -> None:
        """Close every connection."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._threads.shutdown()
        self._engine.dispose()

    async def _in_thread(
        self, connect: Callable[[], AbstractContextManager[Connection]], work: Callable[[Connection], Result]
    ) -> Result:
        def run() -> Result:
            with connect() as connection:
                opened: Opened = connection.info[_OPENED]
                self._guard.check(opened)
                result = work(connection)
            # A commit into a file that was deleted is lost.
            self._guard.check(opened)
            return result

        return await asyncio.get_running_loop().run_in_executor(self._threads, run)

    def _before_connect(self, *_connecting: object) -> None:
        """Raise FileReplaced if SQLite would make a new, empty file or open another one."""
        self._guard.opened()

    def _connected(self, _dbapi_connection: object, record: ConnectionPoolEntry) -> None:
        record.info[_OPENED] = self._guard.opened()


def _server_engine(url: URL, **connect_args: str) -> AsyncEngine:
    return create_async_engine(
        url,
        # In autocommit mode there is nothing to roll back. This saves a round trip after each read.
        skip_autocommit_rollback=True,
        # Replaces connections that a restart of the server has closed. This costs a round trip for each use.
        pool_pre_ping=True,
        connect_args={**SERVER_TIMEOUTS, **connect_args},
    )


def _prepare_sqlite(dbapi_connection: Any, _record: Any) -> None:
    dbapi_connection.isolation_level = None  # transactions begin in _begin_sqlite, not in the driver
    cursor = dbapi_connection.cursor()
    cursor.execute("PRAGMA busy_timeout = 30000")
    # FULL: a commit is on the disk when it returns, so an accepted request survives a power failure.
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    # Overwrite deleted rows with zeros: the tokens of ended requests must not stay readable in the file.
    cursor.execute("PRAGMA secure_delete = ON")
    cursor.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()  # opens the WAL file, whose identity is kept
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
        # A transaction that begins as a read and then writes fails at once if another one writes; IMMEDIATE waits.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
