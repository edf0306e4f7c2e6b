"""Schema migrations of the job store, with Alembic: forward, under a lock, never from a newer version back.

Example:
    migrate(url)  # blocking, once, before the first use of the database

Only what starts a service imports this module: Alembic takes a tenth of a second to import, in every process.
"""

import errno
from importlib import resources
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import create_engine, text

from serve_app.errors import ConfigurationInvalid
from serve_app.jobs.engines import with_driver

# Key of a PostgreSQL advisory lock: any number that nothing else locks in this database.
MIGRATION_LOCK = 0x57414E


def migrate(url: str) -> None:
    """Create the schema or bring it up to date; create the database file of SQLite if there is none. Blocking.

    Processes that start at the same time on one database wait for each other.

    Raises:
        ConfigurationInvalid: the schema is of a newer version of this program, or of one that was never released.
    """
    config = alembic_config(url)
    try:
        command.upgrade(config, "head")
    except CommandError as error:  # Alembic names a revision that it has no file for
        raise ConfigurationInvalid(
            f"database_url: the schema of this database is of another version of this program (revision "
            f"{_revision(url)}), which this one cannot bring up to date; start that version, restore the backup from "
            "before the upgrade, or move the database away to begin with an empty one"
        ) from error


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


def _revision(url: str) -> str:
    engine = create_engine(with_driver(url))
    try:
        with engine.connect() as connection:
            return str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one())
    finally:
        engine.dispose()
