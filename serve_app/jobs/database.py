"""The way to the job store's database: engine, transactions, schema migrations."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, nullcontext
from functools import wraps
from importlib import resources
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from alembic import command
from alembic.config import Config
from sqlalchemy import URL, Connection, Engine, Table, create_engine, event, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DatabaseError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from serve_app.errors import StoreUnavailable

# An INSERT that can say what happens where the row is there already; both databases word it alike.
Upsert = postgresql.Insert | sqlite.Insert

QUEUE_CHANNEL = "renders_queued"  # on which a PostgreSQL server tells who listens that renders were queued

# Of connections to a PostgreSQL server, in libpq's words: a host that drops packets must not hold requests for minutes.
SERVER_TIMEOUTS: Mapping[str, int] = {"connect_timeout": 5, "tcp_user_timeout": 10_000}  # s, ms

_THREADS = 4  # SQLite has one writer; the others read

# A plan that is kept must suit the table that is to come, not the empty one that is there when it is made.
_PLANNED_ONCE = "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c enable_sort=off"

_DEADLOCK = "40P01"  # SQLSTATE: this transaction was ended so that another could go on
_DEADLOCK_TRIES = 5

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def _with_driver(url: str, *, sync: bool) -> str:
    """The URL with the driver that this project uses for that kind of database."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        driver = "sqlite" if sync else "sqlite+aiosqlite"
    else:
        driver = "postgresql+psycopg"
    return parsed.set(drivername=driver).render_as_string(hide_password=False)


def migrate(url: str, revision: str = "head") -> None:
    """Bring the schema up to `revision`, creating the database file of SQLite where there is none. Blocking."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    config = Config()
    config.set_main_option("script_location", str(resources.files("serve_app.jobs") / "migrations"))
    config.attributes["url"] = _with_driver(url, sync=True)
    command.upgrade(config, revision)


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


def _prepare(engine: Engine) -> None:
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)


def _begin_sqlite(connection: Connection) -> None:
    if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
        # A write that began as a read cannot wait for another writer on SQLite; it fails at once.
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _server_engine(url: URL, **connect_args: str) -> AsyncEngine:
    return create_async_engine(
        url,
        # Saves a round trip after each read. Not on SQLite: there SQLAlchemy takes a connection whose BEGIN is its
        # user's for one in autocommit, and would leave a transaction that failed open.
        skip_autocommit_rollback=True,
        # A connection from before a restart of the server is replaced, at the price of a round trip for each use.
        pool_pre_ping=True,
        connect_args={**SERVER_TIMEOUTS, **connect_args},
    )


class Database:
    """Connections to one database, for one process. Open it on the event loop that uses it.

    A transaction is either a block, statement by statement on the event loop, or a function that runs as a whole. The
    driver for SQLite crosses over to a thread several times for each statement, each time waiting for Python's lock; a
    function crosses over once, which is a third of the time for a lone request and less in a crowd.
    """

    def __init__(self, url: str) -> None:
        driver_url = make_url(_with_driver(url, sync=False))
        on_server = driver_url.get_backend_name() == "postgresql"
        self._engine = _server_engine(driver_url) if on_server else create_async_engine(driver_url)
        self._in_threads = None if on_server else _InThreads(_with_driver(url, sync=True))
        planner = _server_engine(driver_url, options=_PLANNED_ONCE) if on_server else self._engine
        self._planner = planner.execution_options(isolation_level="AUTOCOMMIT")
        self._reader = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        self._turn: AbstractAsyncContextManager[None] = nullcontext()
        if self._engine.dialect.name == "sqlite":
            _prepare(self._engine.sync_engine)
            # SQLite has one writer at a time. In line here, writers of this process wait no longer than they must;
            # at SQLite's own lock they would sleep and try again.
            self._turn = asyncio.Lock()

    @asynccontextmanager
    async def read(self, *, planned_once: bool = False) -> AsyncIterator[AsyncConnection]:
        """A connection whose statements each see the newest commit; it must not write.

        Planned once, a statement keeps its plan whatever its values: for one that takes longer to plan than to run, and
        whose parts each have an index that gives their rows in order.

        Raises:
            StoreUnavailable: the database did not answer.
        """
        async with _translated(), (self._planner if planned_once else self._reader).connect() as connection:
            yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that commits when the block ends, and leaves nothing when it raises.

        Raises:
            StoreUnavailable: the database did not answer; nothing was written.
        """
        async with _translated(), self._turn, self._engine.begin() as connection:
            yield connection

    async def read_at_once(self, work: Callable[[Connection], Result]) -> Result:
        """What `work` reads, on a connection as `read` gives one. `work` may run in a thread.

        Raises:
            StoreUnavailable: the database did not answer.
        """
        if self._in_threads is None:
            async with self.read() as connection:
                return await connection.run_sync(work)
        async with _translated():
            return await self._in_threads.read(work)

    async def write_at_once(self, work: Callable[[Connection], Result]) -> Result:
        """What `work` returns, its writes committed, or none of them where it raises. `work` may run in a thread.

        Raises:
            StoreUnavailable: the database did not answer; nothing was written.
        """
        if self._in_threads is None:
            async with self.write() as connection:
                return await connection.run_sync(work)
        async with _translated(), self._turn:
            return await self._in_threads.write(work)

    @property
    def notifies(self) -> bool:
        """Whether the database itself tells who listens of new renders."""
        return self._engine.dialect.name == "postgresql"

    def insert(self, table: Table) -> Upsert:
        """An INSERT in this database's dialect."""
        return postgresql.insert(table) if self._engine.dialect.name == "postgresql" else sqlite.insert(table)

    async def notify(self, connection: AsyncConnection) -> None:
        """Tell who listens, once this transaction is committed, that renders were queued."""
        await connection.run_sync(self.notify_at_once)

    def notify_at_once(self, connection: Connection) -> None:
        """The same inside a transaction that is a function."""
        if self.notifies:
            connection.execute(select(func.pg_notify(QUEUE_CHANNEL, "")))

    async def scrub(self) -> None:
        """Remove what was deleted from SQLite's log, too; a server keeps its log where no client reads it."""
        if self._engine.dialect.name == "sqlite":
            async with self.read() as connection:
                await connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()
        await self._planner.dispose()
        if self._in_threads is not None:
            await asyncio.to_thread(self._in_threads.close)


class _InThreads:
    """Whole transactions on SQLite, each in a thread."""

    def __init__(self, url: str) -> None:
        self._engine = create_engine(url)
        _prepare(self._engine)
        self._reader = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        # Its own, so that no LoRA file that is being read holds up the queue.
        self._threads = ThreadPoolExecutor(_THREADS, "job-store")

    def read(self, work: Callable[[Connection], Result]) -> asyncio.Future[Result]:
        return asyncio.get_running_loop().run_in_executor(self._threads, self._run, self._reader.connect, work)

    def write(self, work: Callable[[Connection], Result]) -> asyncio.Future[Result]:
        return asyncio.get_running_loop().run_in_executor(self._threads, self._run, self._engine.begin, work)

    def close(self) -> None:
        self._threads.shutdown()
        self._engine.dispose()

    @staticmethod
    def _run(connect: Callable[[], AbstractContextManager[Connection]], work: Callable[[Connection], Result]) -> Result:
        with connect() as connection:
            return work(connection)


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
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


def to_the_end(
    method: Callable[Arguments, Coroutine[Any, Any, Result]],
) -> Callable[Arguments, Coroutine[Any, Any, Result]]:
    """Run a coroutine to its end even when its caller is canceled, as by a client that disconnects.

    A transaction that is cut off in the middle can leave its connection, and with it SQLite's write lock, behind. One
    that a server ended because of a deadlock has written nothing and runs again.
    """

    async def to_its_end(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        for _ in range(_DEADLOCK_TRIES - 1):
            try:
                return await method(*args, **kwargs)
            except StoreUnavailable as error:
                if not _is_deadlock(error.__cause__):
                    raise
        return await method(*args, **kwargs)

    @wraps(method)
    async def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        return await asyncio.shield(asyncio.ensure_future(to_its_end(*args, **kwargs)))

    return run


def _is_deadlock(error: BaseException | None) -> bool:
    return isinstance(error, DatabaseError) and getattr(error.orig, "sqlstate", None) == _DEADLOCK
