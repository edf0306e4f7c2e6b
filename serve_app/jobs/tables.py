"""The tables and indexes of the job store. `migrations/versions` must build exactly these (a test compares them)."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    text,
)

metadata = MetaData()

# SQLite numbers rows by itself only if the primary key is a plain INTEGER.
_ROW_NUMBER = BigInteger().with_variant(Integer(), "sqlite")

requests = Table(
    "requests",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("model", String(64), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("tenant", String(64), nullable=False, server_default="default"),
    Column("priority", Integer, nullable=False, server_default=text("1")),  # rank; the larger goes first
    Column("idempotency_key", String(255)),
    Column("body_digest", String(64)),  # of the body that came with the key
    # One entry answers whether a tenant owns an id, so another tenant's id costs what an unknown one does.
    Index("requests_of_owner", "id", "tenant", unique=True),
    # Lists of requests are read backwards through these.
    Index("requests_by_age", "created_at", "id"),
    Index("requests_of_tenant", "tenant", "created_at", "id"),
    Index(
        "requests_idempotency",
        "tenant",
        "idempotency_key",
        unique=True,
        sqlite_where=text("idempotency_key IS NOT NULL"),
        postgresql_where=text("idempotency_key IS NOT NULL"),
    ),
)

# Credentials for the sources of a request's LoRAs, in a table of their own: deleted as soon as the request ends.
request_tokens = Table(
    "request_tokens",
    metadata,
    Column("request_id", String(36), ForeignKey("requests.id", ondelete="CASCADE"), primary_key=True),
    Column("hf_token", Text, nullable=False),
)

# Where the events of a request are sent.
webhooks = Table(
    "webhooks",
    metadata,
    Column("request_id", String(36), ForeignKey("requests.id", ondelete="CASCADE"), primary_key=True),
    Column("url", Text, nullable=False),
    Column("host", Text, nullable=False),  # of the URL: one receiver that hangs must not hold up the others
    Column("events", Text, nullable=False),  # separated by commas
)

# The outbox: the events of requests with a webhook. Each is delivered once, in the order of the ids.
webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("id", _ROW_NUMBER, primary_key=True, autoincrement=True),
    Column("request_id", String(36), ForeignKey("webhooks.request_id", ondelete="CASCADE"), nullable=False),
    Column("event", String(16), nullable=False),
    Column("index", Integer, nullable=False),  # of the prompt; -1 for an event of the whole request
    Column("message_id", String(40), nullable=False),  # the same for each attempt, so that receivers see repeats
    Column("payload", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("next_at", Double, nullable=False),  # of a pending one: when the next attempt is due
    Index("webhook_deliveries_once", "request_id", "event", "index", unique=True),
    Index(
        "webhook_deliveries_pending",
        "next_at",
        "id",
        sqlite_where=text("state = 'pending'"),
        postgresql_where=text("state = 'pending'"),
    ),
    sqlite_autoincrement=True,
)

# Attempts at these deliveries, for their log.
webhook_attempts = Table(
    "webhook_attempts",
    metadata,
    Column("delivery_id", _ROW_NUMBER, ForeignKey("webhook_deliveries.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),  # from 1
    Column("at", Double, nullable=False),
    Column("status", Integer),  # of the answer, if there was one
    Column("error", Text),
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
    Column("output_bytes", BigInteger, nullable=False, server_default=text("0")),
    Column("error_code", String(64)),
    Column("error_message", Text),
    # Copied from the request, so that a line of a model's queue is one range of an index.
    Column("model", String(64), nullable=False),
    Column("tenant", String(64), nullable=False, server_default="default"),
    Column("priority", Integer, nullable=False, server_default=text("1")),
    Column("cost_s", Double, nullable=False, server_default=text("0")),  # predicted seconds of one replica
    Column("steps", Integer, nullable=False, server_default=text("1")),  # denoising steps, as in the spec
    Column("traceparent", String(55)),  # W3C Trace Context of its POST
    Column("searched", Text, nullable=False, server_default=""),  # the prompt, casefolded: what a search looks in
    Index("renders_of_request", "request_id", "index", unique=True),
    # Partial indexes: their size does not depend on the number of finished renders. The first one is covering: it
    # holds all columns that a scheduling decision reads, so a decision reads a few pages of the index.
    Index(
        "renders_of_line",
        "model",
        "tenant",
        "priority",
        "id",
        "pair_key",
        "created_at",
        "cost_s",
        sqlite_where=text("state = 'queued'"),
        postgresql_where=text("state = 'queued'"),
    ),
    Index(
        "renders_of_pair",
        "model",
        "pair_key",
        "tenant",
        "priority",
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

# Previews of running renders: one row each, replaced by the next preview and deleted at the attempt's end.
previews = Table(
    "previews",
    metadata,
    Column(
        "render_id", BigInteger, ForeignKey("renders.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    ),
    Column("step", Integer, nullable=False),  # denoising steps done
    Column("image", LargeBinary, nullable=False),  # animated WebP
)

BUCKET = 512  # neighbouring render ids share a row of totals; the triggers in migrations/versions/0001 divide by it too
WHOLE_LINE = -1  # in the column `bucket`: the totals of the whole line

# Number and predicted cost of queued renders, of each line of a model and of each bucket of it. Triggers keep the rows
# up to date; docs/queue.md says why.
queue_totals = Table(
    "queue_totals",
    metadata,
    Column("model", String(64), primary_key=True),
    Column("tenant", String(64), primary_key=True),
    Column("priority", Integer, primary_key=True, autoincrement=False),
    Column("bucket", BigInteger, primary_key=True, autoincrement=False),
    Column("queued", Integer, nullable=False),
    Column("cost_s", Double, nullable=False),
)

# Leases of roles that only one process may have, and the number of replicas as its holder last reported it.
leaders = Table(
    "leaders",
    metadata,
    Column("role", String(128), primary_key=True),
    Column("holder", String(64), nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("replicas", Integer, nullable=False),
    Column("revision", String(32), nullable=False),  # the schema that the holder's code was written for
)

# Moving averages of measured costs in seconds.
render_costs = Table(
    "render_costs",
    metadata,
    Column("deployment", String(128), primary_key=True),
    Column("recipe", String(16), primary_key=True),
    Column("speed", String(16), primary_key=True),
    Column("guided", Boolean, primary_key=True),
    Column("size_class", Integer, primary_key=True, autoincrement=False),
    Column("step_s", Double, nullable=False),
    Column("other_s", Double, nullable=False),
    Column("samples", Integer, nullable=False),
)

# GPU memory that renders needed besides weights, in bytes: the most that was measured.
render_needs = Table(
    "render_needs",
    metadata,
    Column("deployment", String(128), primary_key=True),
    Column("speed", String(16), primary_key=True),
    Column("pixel_class", Integer, primary_key=True, autoincrement=False),
    Column("num_frames", Integer, primary_key=True, autoincrement=False),
    Column("bytes", BigInteger, nullable=False),
)

# API keys, with the SHA-256 of the secret only. Revoked keys stay, so that lists show them and no id is used twice.
api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("name", String(100), nullable=False),
    Column("tenant", String(64), nullable=False),
    Column("scopes", String(64), nullable=False),  # joined by commas
    Column("secret_sha256", String(64), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Column("revoked_at", Double),
    Column("last_used_at", Double),
    Index("api_keys_of_secret", "id", "secret_sha256", unique=True),
)

# Random secrets that all processes of the service share. The first process that needs one creates it.
server_secrets = Table(
    "server_secrets",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("value", String(64), nullable=False),  # hex
)

# What each tenant has used on each day (UTC).
tenant_usage = Table(
    "tenant_usage",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("day", Integer, primary_key=True, autoincrement=False),  # since 1970-01-01
    Column("gpu_s", Double, nullable=False),  # measured seconds of one replica
    Column("renders", Integer, nullable=False),  # that ended by themselves: succeeded, failed or canceled while running
)

# The migrations that made this schema, each with the oldest revision whose code works with it; see revisions.py.
schema_revisions = Table(
    "schema_revisions",
    metadata,
    Column("revision", String(32), primary_key=True),
    Column("compatible_from", String(32), nullable=False),
)
