"""The database of the job store: transactions with deadlock retry and advisory locks, and one error for all failures.

Example:
    database = Database(url)
    count = await database.read(lambda connection: connection.execute(query).scalar_one())
    await database.write(lambda connection: connection.execute(statement))
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from sqlalchemy import Connection, Table, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DatabaseError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from serve_app.errors import StoreUnavailable
from serve_app.jobs.engines import PostgresTransactions, SqliteTransactions, Transactions, with_driver
from serve_app.jobs.sqlite_file import FileReplaced

# An INSERT with ON CONFLICT; the syntax is the same in both dialects.
Upsert = postgresql.Insert | sqlite.Insert

QUEUE_CHANNEL = "renders_queued"  # of PostgreSQL's LISTEN and NOTIFY

# The key of a PostgreSQL advisory lock; that of migrations is `schema.MIGRATION_LOCK`.
_SUBMISSION_LOCK = 0x57414F

_DEADLOCK = "40P01"  # SQLSTATE deadlock_detected: the server rolled this transaction back
_DEADLOCK_TRIES = 5

Result = TypeVar("Result")


class Database:
    """The connections of one process to one database. Create it on the event loop that uses it.

    A transaction is passed as a function of a connection. It may run in another thread, and again after a deadlock, so
    it must have no other side effects.
    """

    def __init__(self, url: str) -> None:
        driver_url = with_driver(url)
        self._on_server = driver_url.get_backend_name() == "postgresql"
        self._transactions: Transactions = (
            PostgresTransactions(driver_url) if self._on_server else SqliteTransactions(driver_url)
        )
        self._running: set[asyncio.Task[Any]] = set()

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

        return await self._uninterrupted(read())

    async def write(
        self,
        work: Callable[[Connection], Result],
        *,
        scrub_if: Callable[[Result], bool] | None = None,
        committed: Callable[[Result], None] | None = None,
    ) -> Result:
        """Run `work` in one transaction, commit, and return its result; roll back if it raises.

        A transaction that the server rolled back because of a deadlock runs again. `committed(result)` is called once
        the result is durable, on the event loop, also if the caller was canceled meanwhile. If `scrub_if(result)` is
        true, deleted rows are removed from SQLite's WAL file, too.

        Raises:
            StoreUnavailable: the database did not answer; nothing was written.
        """

        async def write() -> Result:
            result = await self._committed(work)
            if committed is not None:
                committed(result)
            if scrub_if is not None and scrub_if(result):
                await self._scrub()
            return result

        return await self._uninterrupted(write())

    async def _uninterrupted(self, transaction: Coroutine[Any, Any, Result]) -> Result:
        """Run a transaction to its end even if the caller is canceled, for example because a client disconnects.

        A transaction that is canceled halfway can leave its connection open, and with it SQLite's write lock.
        """
        task = asyncio.ensure_future(transaction)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

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
        """Close every connection, after the transactions that still run: also those whose callers were canceled."""
        if self._running:
            await asyncio.wait(self._running)
        await self._transactions.close()


@contextmanager
def _translated() -> Iterator[None]:
    """Raise StoreUnavailable for errors of the connection; let errors of a statement (bugs) pass."""
    try:
        yield
    except FileReplaced as error:
        raise StoreUnavailable(
            "the file of the job store was deleted, replaced or overwritten while the service runs; nothing was "
            "written. The operator must put it back, or start the service again; then try again"
        ) from error
    except (OperationalError, InterfaceError, PoolTimeout, OSError) as error:
        raise StoreUnavailable(f"the job store did not answer ({type(error).__name__}); try again shortly") from error
    except DatabaseError as error:
        if type(error) is not DatabaseError and not error.connection_invalidated:
            raise
        # Drivers raise the bare class if the file is no database or the server is no PostgreSQL.
        raise StoreUnavailable("the job store did not answer (DatabaseError); try again shortly") from error


def _is_deadlock(error: BaseException | None) -> bool:
    return isinstance(error, DatabaseError) and getattr(error.orig, "sqlstate", None) == _DEADLOCK
