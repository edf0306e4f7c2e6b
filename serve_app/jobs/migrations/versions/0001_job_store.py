"""Initial schema of the job store: the tables of `serve_app.jobs.tables`, and the triggers that keep `queue_totals`.

Written out, not made from `tables.py`: a revision must build the same schema however the tables change later.
"""

import sqlalchemy as sa
from alembic import op

revision = "2026.11"
down_revision = None
branch_labels = None
depends_on = None
compatible_from = revision  # see serve_app/jobs/revisions.py

# SQLite numbers rows by itself only if the primary key is a plain INTEGER.
_ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

# `queue_totals` has one row for each line of a model (bucket -1) and for each bucket of 512 neighbouring ids in it.
# Lock order: every trigger locks the row of the line before the row of the bucket, so two transactions that change the
# same line cannot deadlock on these rows.
_ADD = """
    INSERT INTO queue_totals (model, tenant, priority, bucket, queued, cost_s)
    VALUES (NEW.model, NEW.tenant, NEW.priority, -1, 1, NEW.cost_s)
    ON CONFLICT (model, tenant, priority, bucket)
    DO UPDATE SET queued = queue_totals.queued + 1, cost_s = queue_totals.cost_s + NEW.cost_s;
    INSERT INTO queue_totals (model, tenant, priority, bucket, queued, cost_s)
    VALUES (NEW.model, NEW.tenant, NEW.priority, NEW.id / 512, 1, NEW.cost_s)
    ON CONFLICT (model, tenant, priority, bucket)
    DO UPDATE SET queued = queue_totals.queued + 1, cost_s = queue_totals.cost_s + NEW.cost_s;
"""
_SUBTRACT = """
    UPDATE queue_totals SET queued = queued - 1, cost_s = cost_s - OLD.cost_s
    WHERE model = OLD.model AND tenant = OLD.tenant AND priority = OLD.priority AND bucket = -1;
    UPDATE queue_totals SET queued = queued - 1, cost_s = cost_s - OLD.cost_s
    WHERE model = OLD.model AND tenant = OLD.tenant AND priority = OLD.priority AND bucket = OLD.id / 512;
    DELETE FROM queue_totals
    WHERE model = OLD.model AND tenant = OLD.tenant AND priority = OLD.priority AND bucket IN (-1, OLD.id / 512)
    AND queued = 0;
"""
_TRIGGERS = {  # name: event, condition, statements
    "renders_queued_by_insert": ("INSERT", "NEW.state = 'queued'", _ADD),
    "renders_queued_again": ("UPDATE OF state", "OLD.state <> 'queued' AND NEW.state = 'queued'", _ADD),
    "renders_taken": ("UPDATE OF state", "OLD.state = 'queued' AND NEW.state <> 'queued'", _SUBTRACT),
    "renders_queued_removed": ("DELETE", "OLD.state = 'queued'", _SUBTRACT),
}


def upgrade() -> None:
    """Create all tables, indexes and triggers."""
    _create_requests()
    _create_webhooks()
    _create_renders()
    _create_previews()
    _create_queue_totals()
    _create_leaders()
    _create_render_costs()
    _create_render_needs()
    _create_access()
    _create_schema_revisions()


def _create_requests() -> None:
    op.create_table(
        "requests",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False, server_default="default"),
        sa.Column("priority", sa.Integer, nullable=False, server_default=sa.text("1")),
        sa.Column("idempotency_key", sa.String(255)),
        sa.Column("body_digest", sa.String(64)),
    )
    op.create_index("requests_of_owner", "requests", ["id", "tenant"], unique=True)
    op.create_index("requests_by_age", "requests", ["created_at", "id"])
    op.create_index("requests_of_tenant", "requests", ["tenant", "created_at", "id"])
    key = ("tenant", "idempotency_key")
    _partial_index("requests_idempotency", "requests", "idempotency_key IS NOT NULL", *key, unique=True)
    op.create_table(
        "request_tokens",
        sa.Column("request_id", sa.String(36), sa.ForeignKey("requests.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("hf_token", sa.Text, nullable=False),
    )


def _create_webhooks() -> None:
    op.create_table(
        "webhooks",
        sa.Column("request_id", sa.String(36), sa.ForeignKey("requests.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("events", sa.Text, nullable=False),
    )
    hook = sa.ForeignKey("webhooks.request_id", ondelete="CASCADE")
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", _ROW_NUMBER, primary_key=True, autoincrement=True),
        sa.Column("request_id", sa.String(36), hook, nullable=False),
        sa.Column("event", sa.String(16), nullable=False),
        sa.Column("index", sa.Integer, nullable=False),
        sa.Column("message_id", sa.String(40), nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("next_at", sa.Double, nullable=False),
        sqlite_autoincrement=True,
    )
    once = ["request_id", "event", "index"]
    op.create_index("webhook_deliveries_once", "webhook_deliveries", once, unique=True)
    _partial_index("webhook_deliveries_pending", "webhook_deliveries", "state = 'pending'", "next_at", "id")
    delivery = sa.ForeignKey("webhook_deliveries.id", ondelete="CASCADE")
    op.create_table(
        "webhook_attempts",
        sa.Column("delivery_id", _ROW_NUMBER, delivery, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("status", sa.Integer),
        sa.Column("error", sa.Text),
    )


def _create_renders() -> None:
    op.create_table(
        "renders",
        sa.Column("id", _ROW_NUMBER, primary_key=True, autoincrement=True),
        sa.Column("request_id", sa.String(36), sa.ForeignKey("requests.id", ondelete="CASCADE"), nullable=False),
        sa.Column("index", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("pair_key", sa.String(16), nullable=False),
        sa.Column("spec", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("steps_done", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("attempt", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("lease_token", sa.String(32)),
        sa.Column("lease_expires_at", sa.Double),
        sa.Column("replica", sa.String(128)),
        sa.Column("cancel_requested", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.Column("started_at", sa.Double),
        sa.Column("finished_at", sa.Double),
        sa.Column("output", sa.Text),
        sa.Column("output_bytes", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("error_code", sa.String(64)),
        sa.Column("error_message", sa.Text),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False, server_default="default"),
        sa.Column("priority", sa.Integer, nullable=False, server_default=sa.text("1")),
        sa.Column("cost_s", sa.Double, nullable=False, server_default=sa.text("0")),
        sa.Column("steps", sa.Integer, nullable=False, server_default=sa.text("1")),
        sa.Column("traceparent", sa.String(55)),
        sa.Column("searched", sa.Text, nullable=False, server_default=""),
        sqlite_autoincrement=True,
    )
    op.create_index("renders_of_request", "renders", ["request_id", "index"], unique=True)
    line = ("tenant", "priority", "id")
    _partial_index("renders_of_line", "renders", "state = 'queued'", "model", *line, "pair_key", "created_at", "cost_s")
    _partial_index("renders_of_pair", "renders", "state = 'queued'", "model", "pair_key", *line)
    _partial_index("renders_leased", "renders", "state = 'processing'", "lease_expires_at")


def _partial_index(name: str, table: str, condition: str, *columns: str, unique: bool = False) -> None:
    where = sa.text(condition)
    op.create_index(name, table, list(columns), unique=unique, sqlite_where=where, postgresql_where=where)


def _create_previews() -> None:
    op.create_table(
        "previews",
        sa.Column(
            "render_id",
            sa.BigInteger,
            sa.ForeignKey("renders.id", ondelete="CASCADE"),
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("image", sa.LargeBinary, nullable=False),
    )


def _create_queue_totals() -> None:
    op.create_table(
        "queue_totals",
        sa.Column("model", sa.String(64), primary_key=True),
        sa.Column("tenant", sa.String(64), primary_key=True),
        sa.Column("priority", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("bucket", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("queued", sa.Integer, nullable=False),
        sa.Column("cost_s", sa.Double, nullable=False),
    )
    on_postgresql = op.get_bind().dialect.name == "postgresql"
    for name, (event, condition, statements) in _TRIGGERS.items():
        trigger = f"CREATE TRIGGER {name} AFTER {event} ON renders"
        if on_postgresql:
            body = f"BEGIN {statements} RETURN NULL; END"
            op.execute(f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ {body} $$")
            op.execute(f"{trigger} FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION {name}()")
        else:
            op.execute(f"{trigger} WHEN {condition} BEGIN {statements} END")


def _create_leaders() -> None:
    op.create_table(
        "leaders",
        sa.Column("role", sa.String(128), primary_key=True),
        sa.Column("holder", sa.String(64), nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
        sa.Column("replicas", sa.Integer, nullable=False),
        sa.Column("revision", sa.String(32), nullable=False),
    )


def _create_render_costs() -> None:
    op.create_table(
        "render_costs",
        sa.Column("deployment", sa.String(128), primary_key=True),
        sa.Column("recipe", sa.String(16), primary_key=True),
        sa.Column("speed", sa.String(16), primary_key=True),
        sa.Column("guided", sa.Boolean, primary_key=True),
        sa.Column("size_class", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("step_s", sa.Double, nullable=False),
        sa.Column("other_s", sa.Double, nullable=False),
        sa.Column("samples", sa.Integer, nullable=False),
    )


def _create_render_needs() -> None:
    op.create_table(
        "render_needs",
        sa.Column("deployment", sa.String(128), primary_key=True),
        sa.Column("speed", sa.String(16), primary_key=True),
        sa.Column("pixel_class", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("num_frames", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
    )


def _create_access() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("scopes", sa.String(64), nullable=False),
        sa.Column("secret_sha256", sa.String(64), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double),
        sa.Column("revoked_at", sa.Double),
        sa.Column("last_used_at", sa.Double),
    )
    op.create_index("api_keys_of_secret", "api_keys", ["id", "secret_sha256"], unique=True)
    op.create_table(
        "server_secrets",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("value", sa.String(64), nullable=False),
    )
    op.create_table(
        "tenant_usage",
        sa.Column("tenant", sa.String(64), primary_key=True),
        sa.Column("day", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("gpu_s", sa.Double, nullable=False),
        sa.Column("renders", sa.Integer, nullable=False),
    )


def _create_schema_revisions() -> None:
    op.create_table(
        "schema_revisions",
        sa.Column("revision", sa.String(32), primary_key=True),
        sa.Column("compatible_from", sa.String(32), nullable=False),
    )


def downgrade() -> None:
    """Drop everything. The triggers go with their table, their functions on PostgreSQL do not."""
    access = ("schema_revisions", "tenant_usage", "server_secrets", "api_keys")
    hooks = ("webhook_attempts", "webhook_deliveries", "webhooks")
    queue = ("render_costs", "render_needs", "leaders", "queue_totals", "previews", "renders")
    for table in (*access, *queue, *hooks, "request_tokens", "requests"):
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        for name in _TRIGGERS:
            op.execute(f"DROP FUNCTION {name}()")
