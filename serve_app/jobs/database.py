"""The job store's database: transactions, schema migrations."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from sqlalchemy import URL, Connection, Table, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DatabaseError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from serve_app.errors import StoreUnavailable
from serve_app.jobs.transactions import InThreads, OnServer, Transactions

# An INSERT that can say what happens where the row is there already; both databases word it alike.
Upsert = postgresql.Insert | sqlite.Insert

QUEUE_CHANNEL = "renders_queued"  # on which a PostgreSQL server tells who listens that renders were queued

# Keys of PostgreSQL advisory locks: any numbers that nothing else locks in this database.
MIGRATION_LOCK = 0x57414E
_SUBMISSION_LOCK = 0x57414F

_DEADLOCK = "40P01"  # SQLSTATE: this transaction was ended so that another could go on
_DEADLOCK_TRIES = 5

Result = TypeVar("Result")


def _with_driver(url: str) -> URL:
    """The URL with the driver that this project uses for that kind of database."""
    parsed = make_url(url)
    return parsed.set(drivername="sqlite" if parsed.get_backend_name() == "sqlite" else "postgresql+psycopg")


def migrate(url: str) -> None:
    """Create the schema or bring it up to date; create the database file of SQLite if there is none. Blocking.

    Processes that start at the same time on one database wait for each other.
    """
    command.upgrade(alembic_config(url), "head")


def alembic_config(url: str) -> Config:
    """Return what Alembic needs to run the migrations on that database."""
    driver_url = _with_driver(url)
    if driver_url.get_backend_name() == "sqlite" and driver_url.database:
        Path(driver_url.database).parent.mkdir(parents=True, exist_ok=True)
    config = Config()
    config.set_main_option("script_location", str(resources.files("serve_app.jobs") / "migrations"))
    config.attributes["url"] = driver_url
    return config


class Database:
    """Connections to one database, for one process. Open it on the event loop that uses it.

    A transaction is a function of a connection; it may run in a thread, and more than once.
    """

    def __init__(self, url: str) -> None:
        driver_url = _with_driver(url)
        self._on_server = driver_url.get_backend_name() == "postgresql"
        self._transactions: Transactions = OnServer(driver_url) if self._on_server else InThreads(driver_url)

    async def read(self, work: Callable[[Connection], Result], *, planned_once: bool = False) -> Result:
        """Run `work`, whose statements each see the newest commit, and which must not write; return what it returns.

        Planned once, a statement keeps its plan whatever its values. Use it for one that takes longer to plan than to
        run, and whose parts each have an index that gives their rows in order.

        Raises:
            StoreUnavailable: the database did not answer.
        """

        async def read() -> Result:
            with _translated():
                return await self._transactions.read(work, planned_once=planned_once)

        return await _uninterrupted(read())

    async def write(
        self, work: Callable[[Connection], Result], *, scrub_if: Callable[[Result], bool] | None = None
    ) -> Result:
        """Run `work` in one transaction, commit, and return what it returns; where it raises, nothing is written.

        A transaction that the server ended because of a deadlock has written nothing, and runs again. Where `scrub_if`
        is true of the result, what was deleted is removed from SQLite's log as well.

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
        """Whether the database itself tells who listens of new renders."""
        return self._on_server

    def insert(self, table: Table) -> Upsert:
        """An INSERT in this database's dialect."""
        return postgresql.insert(table) if self._on_server else sqlite.insert(table)

    def take_turn(self, connection: Connection) -> None:
        """Wait for every transaction that took its turn before, here or elsewhere; SQLite has one writer anyway."""
        if self._on_server:
            connection.execute(select(func.pg_advisory_xact_lock(_SUBMISSION_LOCK)))

    def notify(self, connection: Connection) -> None:
        """Tell who listens, once this transaction is committed, that renders were queued."""
        if self.notifies:
            connection.execute(select(func.pg_notify(QUEUE_CHANNEL, "")))

    async def _scrub(self) -> None:
        """Truncate SQLite's log, in which deleted rows stay readable; a server's log is not where clients read."""
        if not self._on_server:
            with _translated():
                await self._transactions.read(
                    lambda connection: connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").close(),
                    planned_once=False,
                )

    async def close(self) -> None:
        """Close every connection."""
        await self._transactions.close()


@contextmanager
def _translated() -> Iterator[None]:
    """Trouble with the connection as StoreUnavailable; a statement that is wrong stays what it is."""
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeout, OSError) as error:
        raise StoreUnavailable(f"the job store did not answer ({type(error).__name__}); try again shortly") from error
    except DatabaseError as error:
        if type(error) is not DatabaseError and not error.connection_invalidated:
            raise
        # Drivers raise the bare class when the file or the server is not what it should be.
        raise StoreUnavailable("the job store did not answer (DatabaseError); try again shortly") from error


async def _uninterrupted(transaction: Coroutine[Any, Any, Result]) -> Result:
    """Run a transaction to its end even where its caller is canceled, as by a client that disconnects.

    One that is cut off in the middle can leave its connection, and with it SQLite's write lock, behind.
    """
    return await asyncio.shield(asyncio.ensure_future(transaction))


def _is_deadlock(error: BaseException | None) -> bool:
    return isinstance(error, DatabaseError) and getattr(error.orig, "sqlstate", None) == _DEADLOCK
