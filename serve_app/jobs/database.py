"""The database of the job store: transactions on SQLite or PostgreSQL, deadlock retry, errors.

database = Database(url)
count = await database.read(lambda connection: connection.execute(query).scalar_one())
await database.write(lambda connection: connection.execute(statement))
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from sqlalchemy import URL, Connection, Table, create_engine, event, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DatabaseError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from serve_app.errors import StoreUnavailable
from serve_app.jobs.sqlite_file import FileGuard, FileReplaced, Opened

# An INSERT with ON CONFLICT; the syntax is the same in both dialects.
Upsert = postgresql.Insert | sqlite.Insert

QUEUE_CHANNEL = "renders_queued"  # of PostgreSQL's LISTEN and NOTIFY

# libpq connection parameters: a host that drops packets must not hold requests for minutes.
SERVER_TIMEOUTS: Mapping[str, int] = {"connect_timeout": 5, "tcp_user_timeout": 10_000}  # s, ms

# The key of a PostgreSQL advisory lock; that of migrations is `schema.MIGRATION_LOCK`.
_SUBMISSION_LOCK = 0x57414F

_DEADLOCK = "40P01"  # SQLSTATE deadlock_detected: the server rolled this transaction back
_DEADLOCK_TRIES = 5

_OPENED = "opened"  # the key of a connection's files in SQLAlchemy's own notes about it
_THREADS = 4  # SQLite has one writer; the other threads read

# A generic plan is kept for all later queues, so it must not be the one that suits the empty table of the first call.
_GENERIC_PLAN = "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c enable_sort=off"

Result = TypeVar("Result")


class Database:
    """The connections of one process to one database. Create it on the event loop that uses it.

    A transaction is passed as a function of a connection. It may run in another thread, and again after a deadlock, so
    it must have no other side effects.
    """

    def __init__(self, url: str) -> None:
        driver_url = with_driver(url)
        self._on_server = driver_url.get_backend_name() == "postgresql"
        self._transactions: _Transactions = _OnServer(driver_url) if self._on_server else _InThreads(driver_url)

    async def read(self, work: Callable[[Connection], Result], *, generic_plan: bool = False) -> Result:
        """Run `work` in autocommit mode (each statement sees the newest commit) and return its result.

        `work` must not write. `generic_plan` makes PostgreSQL plan a prepared statement once, for all values. Use it
        for a statement that takes longer to plan than to run, if each part can read its rows in order from an index.

        Raises:
            StoreUnavailable: the database did not answer.
        """

        async def read() -> Result:
            with _translated():
                return await self._transactions.read(work, generic_plan=generic_plan)

        return await _uninterrupted(read())

    async def write(
        self, work: Callable[[Connection], Result], *, scrub_if: Callable[[Result], bool] | None = None
    ) -> Result:
        """Run `work` in one transaction, commit, and return its result; roll back if it raises.

        A transaction that the server rolled back because of a deadlock runs again. If `scrub_if(result)` is true,
        deleted rows are removed from SQLite's WAL file, too.

        Raises:
            StoreUnavailable: the database did not answer; nothing was written.
        """

        async def write() -> Result:
            result = await self._committed(work)
            if scrub_if is not None and scrub_if(result):
                await self._scrub()
            return result

        return await _uninterrupted(write())

    async def _committed(self, work: Callable[[Connection], Result]) -> Result:
        for _ in range(_DEADLOCK_TRIES - 1):
            try:
                return await self._once(work)
            except StoreUnavailable as error:
                if not _is_deadlock(error.__cause__):
                    raise
        return await self._once(work)

    async def _once(self, work: Callable[[Connection], Result]) -> Result:
        with _translated():
            return await self._transactions.write(work)

    @property
    def notifies(self) -> bool:
        """Return whether the database notifies listeners (PostgreSQL's NOTIFY)."""
        return self._on_server

    def insert(self, table: Table) -> Upsert:
        """Return an INSERT in the dialect of this database, which has ON CONFLICT."""
        return postgresql.insert(table) if self._on_server else sqlite.insert(table)

    def lock_submissions(self, connection: Connection) -> None:
        """Let one transaction at a time, of all processes, go on from here to its commit (an advisory lock)."""
        # SQLite has one writer anyway.
        if self._on_server:
            connection.execute(select(func.pg_advisory_xact_lock(_SUBMISSION_LOCK)))

    def notify(self, connection: Connection, models: Iterable[str]) -> None:
        """Tell listeners which models' renders were queued; PostgreSQL delivers it when this transaction commits."""
        if self.notifies:
            for model in models:
                connection.execute(select(func.pg_notify(QUEUE_CHANNEL, model)))

    async def _scrub(self) -> None:
        """Truncate the WAL of SQLite, in which deleted rows stay readable."""
        if not self._on_server:
            with _translated():
                await self._transactions.read(
                    lambda connection: connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").close(),
                    generic_plan=False,
                )

    async def close(self) -> None:
        """Close every connection."""
        await self._transactions.close()


@contextmanager
def _translated() -> Iterator[None]:
    """Raise StoreUnavailable for errors of the connection; let errors of a statement (bugs) pass."""
    try:
        yield
    except FileReplaced as error:
        raise StoreUnavailable(
            "the file of the job store was deleted or replaced while the service runs; nothing was written. Whoever "
            "runs the service must put it back or start the service again"
        ) from error
    except (OperationalError, InterfaceError, PoolTimeout, OSError) as error:
        raise StoreUnavailable(f"the job store did not answer ({type(error).__name__}); try again shortly") from error
    except DatabaseError as error:
        if type(error) is not DatabaseError and not error.connection_invalidated:
            raise
        # Drivers raise the bare class if the file is no database or the server is no PostgreSQL.
        raise StoreUnavailable("the job store did not answer (DatabaseError); try again shortly") from error


async def _uninterrupted(transaction: Coroutine[Any, Any, Result]) -> Result:
    """Run a transaction to its end even if the caller is canceled, for example because a client disconnects.

    A transaction that is canceled halfway can leave its connection open, and with it SQLite's write lock.
    """
    return await asyncio.shield(asyncio.ensure_future(transaction))


def _is_deadlock(error: BaseException | None) -> bool:
    return isinstance(error, DatabaseError) and getattr(error.orig, "sqlstate", None) == _DEADLOCK


def with_driver(url: str) -> URL:
    """Return the URL with the driver that this project uses for that kind of database."""
    parsed = make_url(url)
    return parsed.set(drivername="sqlite" if parsed.get_backend_name() == "sqlite" else "postgresql+psycopg")


class _Transactions(Protocol):
    """Runs transactions without blocking the event loop; raises what the driver raises."""

    async def read(self, work: Callable[[Connection], Result], *, generic_plan: bool) -> Result:
        """Run `work` in autocommit mode and return its result; see `Database.read`."""

    async def write(self, work: Callable[[Connection], Result]) -> Result:
        """Run `work` in one transaction, commit, and return its result."""

    async def close(self) -> None:
        """Close every connection."""


class _OnServer:
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


class _InThreads:
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
        # SQLite has one writer at a time. At SQLite's own lock the writers of this process would sleep and poll, each
        # in a thread that others could use. Waiting for this lock takes no thread, and no longer than needed.
        self._turn = asyncio.Lock()

    async def read(self, work: Callable[[Connection], Result], *, generic_plan: bool) -> Result:
        """See `Database.read`. SQLite plans a statement in microseconds, so `generic_plan` changes nothing."""
        return await self._in_thread(self._reader.connect, work)

    async def write(self, work: Callable[[Connection], Result]) -> Result:
        """See `Database.write`."""
        async with self._turn:
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
            # What was committed into a file without a name is as good as not written.
            self._guard.check(opened)
            return result

        return await asyncio.get_running_loop().run_in_executor(self._threads, run)

    def _before_connect(self, *_connecting: object) -> None:
        """Raise FileReplaced where SQLite would make a new, empty file or open another one."""
        self._guard.opened()

    def _connected(self, _dbapi_connection: object, record: ConnectionPoolEntry) -> None:
        record.info[_OPENED] = self._guard.opened()


def _server_engine(url: URL, **connect_args: str) -> AsyncEngine:
    return create_async_engine(
        url,
        # In autocommit mode there is nothing to roll back: saves a round trip after each read.
        skip_autocommit_rollback=True,
        # Replaces connections from before a restart of the server; costs a round trip for each use.
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
