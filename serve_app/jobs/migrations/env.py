"""Alembic environment: run the migrations in one transaction on the URL that `serve_app.jobs.schema` passes in."""

from functools import partial

from alembic import context
from sqlalchemy import NullPool, create_engine, event, text

from serve_app.jobs.engines import connect_arguments
from serve_app.jobs.schema import MIGRATION_LOCK, begin_sqlite, check_holders, prepare_sqlite, record_revision
from serve_app.jobs.tables import metadata

LOCK_TIMEOUT_MS = 20_000  # a start that waits for a peer that hangs must fail

url = context.config.attributes["url"]
# No pool, so that no connection outlives this.
engine = create_engine(url, poolclass=NullPool, connect_args=connect_arguments(url))
if engine.dialect.name == "sqlite":
    event.listen(engine, "connect", prepare_sqlite)
    event.listen(engine, "begin", begin_sqlite)
with engine.connect() as connection:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        transaction_per_migration=False,
        transactional_ddl=True,  # SQLite can, if the driver leaves transactions alone; Alembic assumes that it does not
        on_version_apply=partial(record_revision, connection, context.script),
    )
    with context.begin_transaction():
        if connection.dialect.name == "postgresql":
            # Advisory lock: processes that start at the same time on one database wait for each other here. On SQLite
            # they wait where a transaction begins.
            connection.execute(text(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}"))
            connection.execute(text(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))
        check_holders(connection, context.get_context().get_current_revision(), context.script)
        context.run_migrations()
