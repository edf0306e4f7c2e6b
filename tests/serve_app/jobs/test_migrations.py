"""Schema migrations on real databases: they build the tables of the code, once, and forward only."""

import subprocess
import sys
import time

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, func, inspect, select, text

from serve_app.errors import ConfigurationInvalid
from serve_app.jobs.revisions import OLDER, REVISION
from serve_app.jobs.schema import MIGRATION_LOCK, alembic_config, migrate
from serve_app.jobs.tables import metadata, schema_revisions
from tests.fixtures.store import connect

WAITING = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = :lock")


def test_the_migrations_build_the_tables_that_the_store_uses(database_url: str) -> None:
    with connect(database_url) as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
    assert differences == []


def test_a_second_start_changes_nothing(database_url: str) -> None:
    migrate(database_url)


@pytest.mark.parametrize("database_url", ["sqlite-empty", "postgresql-empty"], indirect=True)
def test_of_several_processes_that_start_at_once_one_migrates_and_the_others_wait(database_url: str) -> None:
    start = f"from serve_app.jobs.schema import migrate; migrate({database_url!r})"
    with connect(database_url) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(select(func.pg_advisory_xact_lock(MIGRATION_LOCK)))
        else:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        starters = [subprocess.Popen([sys.executable, "-c", start]) for _ in range(4)]
        if connection.dialect.name == "postgresql":
            wait_until_waiting(connection, len(starters))
        assert inspect(connection).get_table_names() == []
    assert [starter.wait(timeout=60) for starter in starters] == [0, 0, 0, 0]
    with connect(database_url) as connection:
        assert set(inspect(connection).get_table_names()) == {*metadata.tables, "alembic_version"}
        applied = connection.execute(select(schema_revisions)).all()
        assert [tuple(row) for row in applied] == [(REVISION, REVISION)]


def wait_until_waiting(connection: Connection, count: int) -> None:
    deadline = time.monotonic() + 30
    while connection.execute(WAITING, {"lock": MIGRATION_LOCK}).scalar_one() < count:
        assert time.monotonic() < deadline, "the migrations do not wait for the lock"
        time.sleep(0.05)


def test_the_code_knows_its_revision_and_those_before_it() -> None:
    scripts = ScriptDirectory.from_config(alembic_config("sqlite://"))
    *older, newest = reversed(list(scripts.walk_revisions()))
    assert (newest.revision, [script.revision for script in older]) == (REVISION, list(OLDER))


def test_each_migration_names_the_oldest_code_that_works_with_it() -> None:
    scripts = ScriptDirectory.from_config(alembic_config("sqlite://"))
    for script in scripts.walk_revisions():
        before = {known.revision for known in scripts.iterate_revisions(script.revision, "base")}
        assert script.module.compatible_from in before


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
