"""Schema migrations of the job store, with Alembic: forward, under a lock, never from a newer version back.

Example:
    migrate(url)  # blocking, once, before the first use of the database

Two versions of the code may use one database while an upgrade is rolled out: see `serve_app.jobs.revisions`. Only what
starts a service imports this module: Alembic takes a tenth of a second to import, in every process.
"""

import errno
import logging
from importlib import resources
from pathlib import Path
from time import monotonic, sleep, time
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationInfo
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, create_engine, delete, insert, inspect, select, text

from serve_app.errors import ConfigurationInvalid
from serve_app.jobs.coordination import DISPATCHERS
from serve_app.jobs.engines import connect_arguments, with_driver
from serve_app.jobs.revisions import works_with
from serve_app.jobs.tables import leaders, schema_revisions

logger = logging.getLogger("ray.serve.wan")

# Key of a PostgreSQL advisory lock: any number that nothing else locks in this database.
MIGRATION_LOCK = 0x57414E

# A service that was killed leaves leases behind, which run out by themselves (`dispatcher_lease_s`, 5 s by default).
_PATIENCE_S = 20.0
_POLL_S = 0.5


class OlderVersionRuns(Exception):
    """A service works on this database whose code could not work with the schema that this version needs."""


def migrate(url: str, *, patience_s: float = _PATIENCE_S) -> None:
    """Create the schema or bring it up to date; create the database file of SQLite if there is none. Blocking.

    Processes that start at the same time on one database wait for each other. A newer schema is left as it is, if its
    migration says that this code works with it, as during an upgrade.

    Raises:
        ConfigurationInvalid: the schema is of a newer version that this one cannot work beside, or of one that was
            never released; or an older service still runs, after `patience_s`, that could not work beside this one.
    """
    config = alembic_config(url)
    deadline = monotonic() + patience_s
    while True:
        try:
            command.upgrade(config, "head")
        except CommandError as error:  # Alembic names a revision that it has no file for
            _accept_newer(url, error)
        except OlderVersionRuns as error:
            if monotonic() < deadline:
                sleep(_POLL_S)
                continue
            raise ConfigurationInvalid(
                f"database_url: a service of an older version ({error}) works on this database, and could not after "
                "this version has changed the schema; stop it first, or upgrade through the versions in between"
            ) from None
        return


def alembic_config(url: str) -> Config:
    """Return the Alembic configuration for that database; create the directory of an SQLite file."""
    driver_url = with_driver(url)
    if driver_url.get_backend_name() == "sqlite" and driver_url.database:
        path = Path(driver_url.database)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():  # SQLite would wait at a FIFO
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
    config = Config()
    config.set_main_option("script_location", str(resources.files("serve_app.jobs") / "migrations"))
    config.attributes["url"] = driver_url
    return config


def check_holders(connection: Connection, current: str | None, scripts: ScriptDirectory) -> None:
    """Raise OlderVersionRuns if a Dispatcher holds its lease whose code a migration to come would break.

    `current` is the revision of the schema. Called by Alembic's environment, under the lock.
    """
    history = [script.revision for script in scripts.walk_revisions()]  # newest first
    if current not in history:  # an empty database, or one of a newer version
        return
    to_come = [scripts.get_revision(revision) for revision in history[: history.index(current)]]
    live = select(leaders.c.revision).where(leaders.c.role.startswith(DISPATCHERS), leaders.c.expires_at > time())
    for revision in connection.execute(live).scalars():
        until_then = history[history.index(revision) :]
        if any(script.module.compatible_from not in until_then for script in to_come):
            raise OlderVersionRuns(revision)


def record_revision(connection: Connection, scripts: ScriptDirectory, *, step: MigrationInfo, **_more: Any) -> None:
    """Keep what the migration that was just applied says of older code, for that code to read."""
    script = scripts.get_revision(step.up_revision_id or "")
    if not step.is_upgrade or script is None:
        return
    connection.execute(delete(schema_revisions).where(schema_revisions.c.revision == script.revision))
    row = {"revision": script.revision, "compatible_from": script.module.compatible_from}
    connection.execute(insert(schema_revisions).values(row))


def prepare_sqlite(dbapi_connection: Any, _record: Any) -> None:
    """Leave transactions to `begin_sqlite`, wait for others, and use WAL: readers go on while one connection writes."""
    dbapi_connection.isolation_level = None
    cursor = dbapi_connection.cursor()
    cursor.execute("PRAGMA busy_timeout = 20000")
    # The mode is stored in the file, and changing it needs the file to itself, so it is set here, before the service
    # opens any connection.
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.close()


def begin_sqlite(connection: Connection) -> None:
    """Begin a transaction as the one writer, which is the lock of migrations on SQLite."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _accept_newer(url: str, error: CommandError) -> None:
    """Return if this code may use the schema that it has no migration for; else raise ConfigurationInvalid."""
    driver_url = with_driver(url)
    engine = create_engine(driver_url, connect_args=connect_arguments(driver_url))
    try:
        with engine.connect() as connection:
            revision = str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one())
            works = works_with(_compatible_from(connection, revision))
    finally:
        engine.dispose()
    if works:
        logger.info(
            "the schema of the job store is of a newer version (revision %s), beside which this works", revision
        )
        return
    raise ConfigurationInvalid(
        f"database_url: the schema of this database is of another version of this program (revision {revision}), which "
        "this one cannot bring up to date; start that version, restore the backup from before the upgrade, or move the "
        "database away to begin with an empty one"
    ) from error


def _compatible_from(connection: Connection, revision: str) -> str | None:
    if not inspect(connection).has_table(schema_revisions.name):
        return None
    query = select(schema_revisions.c.compatible_from).where(schema_revisions.c.revision == revision)
    return connection.execute(query).scalar_one_or_none()
