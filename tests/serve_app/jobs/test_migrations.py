import subprocess
import sys
import time

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, func, inspect, select, text

from serve_app.errors import ConfigurationInvalid
from serve_app.jobs.schema import MIGRATION_LOCK, alembic_config, migrate
from serve_app.jobs.tables import metadata
from tests.fixtures.store import connect

WAITING = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = :lock")


def test_the_migrations_build_the_tables_that_the_store_uses(database_url: str) -> None:
    with connect(database_url) as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
    assert differences == []


def test_a_second_start_changes_nothing(database_url: str) -> None:
    migrate(database_url)


@pytest.mark.parametrize("database_url", ["postgresql-empty"], indirect=True)
def test_two_processes_that_start_at_once_wait_for_each_other(database_url: str) -> None:
    start = f"from serve_app.jobs.schema import migrate; migrate({database_url!r})"
    with connect(database_url) as connection:
        connection.execute(select(func.pg_advisory_lock(MIGRATION_LOCK)))
        starters = [subprocess.Popen([sys.executable, "-c", start]) for _ in range(2)]
        try:
            wait_until_waiting(connection, len(starters))
            assert inspect(connection).get_table_names() == []
        finally:
            connection.execute(select(func.pg_advisory_unlock(MIGRATION_LOCK)))
            ended = [starter.wait(timeout=30) for starter in starters]
        assert ended == [0, 0]
    with connect(database_url) as connection:
        assert set(inspect(connection).get_table_names()) == {*metadata.tables, "alembic_version"}


def wait_until_waiting(connection: Connection, count: int) -> None:
    deadline = time.monotonic() + 30
    while connection.execute(WAITING, {"lock": MIGRATION_LOCK}).scalar_one() < count:
        assert time.monotonic() < deadline, "the migrations do not wait for the lock"
        time.sleep(0.05)


def test_a_downgrade_drops_everything(database_url: str) -> None:
    command.downgrade(alembic_config(database_url), "base")
    with connect(database_url) as connection:
        assert inspect(connection).get_table_names() == ["alembic_version"]
    migrate(database_url)  # no function of a trigger was left over


def test_a_database_of_a_newer_version_is_refused(database_url: str) -> None:
    with connect(database_url) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        connection.commit()
    with pytest.raises(ConfigurationInvalid, match=r"another version .* \(revision 9999\).*; start that version"):
        migrate(database_url)
