"""The tables of the job store. `migrations/versions` must build exactly these (a test compares them)."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    text,
)

metadata = MetaData()

# SQLite only numbers rows by itself where the primary key is a plain INTEGER.
_ROW_NUMBER = BigInteger().with_variant(Integer(), "sqlite")

requests = Table(
    "requests",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("model", String(64), nullable=False),
    Column("created_at", Double, nullable=False),
)

# Credentials for the sources of a request's LoRAs, kept apart so that they can go as soon as the request ends.
request_tokens = Table(
    "request_tokens",
    metadata,
    Column("request_id", String(36), ForeignKey("requests.id", ondelete="CASCADE"), primary_key=True),
    Column("hf_token", Text, nullable=False),
)

renders = Table(
    "renders",
    metadata,
    Column("id", _ROW_NUMBER, primary_key=True, autoincrement=True),  # also the order of arrival
    Column("request_id", String(36), ForeignKey("requests.id", ondelete="CASCADE"), nullable=False),
    Column("index", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("pair_key", String(16), nullable=False),
    Column("spec", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("steps_done", Integer, nullable=False, server_default=text("0")),
    Column("attempt", Integer, nullable=False, server_default=text("0")),
    Column("lease_token", String(32)),
    Column("lease_expires_at", Double),
    Column("replica", String(128)),
    Column("cancel_requested", Boolean, nullable=False, server_default=text("false")),
    Column("started_at", Double),
    Column("finished_at", Double),
    Column("output", Text),
    Column("error_code", String(64)),
    Column("error_message", Text),
    Index("renders_of_request", "request_id", "index", unique=True),
    # Partial: claiming and sweeping cost the same whatever lies finished in the table.
    Index(
        "renders_queued",
        "id",
        sqlite_where=text("state = 'queued'"),
        postgresql_where=text("state = 'queued'"),
    ),
    Index(
        "renders_leased",
        "lease_expires_at",
        sqlite_where=text("state = 'processing'"),
        postgresql_where=text("state = 'processing'"),
    ),
    sqlite_autoincrement=True,
)
