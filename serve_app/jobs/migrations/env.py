"""Alembic environment: run the migrations in one transaction on the URL that `serve_app.jobs.schema` passes in."""

from alembic import context
from sqlalchemy import NullPool, create_engine, text

from serve_app.jobs.schema import MIGRATION_LOCK
from serve_app.jobs.tables import metadata

engine = create_engine(context.config.attributes["url"], poolclass=NullPool)  # so that no connection outlives this
with engine.connect() as connection:
    if connection.dialect.name == "sqlite":
        # WAL lets readers go on while one connection writes. The mode is stored in the file, and changing it needs
        # the file to itself, so it is set here, before the service opens any connection.
        connection.execute(text("PRAGMA journal_mode = WAL"))
        connection.commit()
    context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=False)
    with context.begin_transaction():
        if connection.dialect.name == "postgresql":
            # Advisory lock: processes that start at the same time on one database wait for each other here.
            connection.execute(text(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))
        context.run_migrations()
