"""Alembic's entry point: run the migrations over the URL that `serve_app.jobs.database.migrate` hands in."""

from alembic import context
from sqlalchemy import create_engine, text

from serve_app.jobs.tables import metadata

_MIGRATION_LOCK = 0x57414E  # any number that nothing else locks in this database

engine = create_engine(context.config.attributes["url"])
with engine.connect() as connection:
    if connection.dialect.name == "sqlite":
        # Kept in the file: readers go on while one writes. Set here, before anything else has the file open.
        connection.execute(text("PRAGMA journal_mode = WAL"))
        connection.commit()
    context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=False)
    with context.begin_transaction():
        if connection.dialect.name == "postgresql":
            # Two clusters that start on one database wait for each other here.
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
        context.run_migrations()
engine.dispose()
