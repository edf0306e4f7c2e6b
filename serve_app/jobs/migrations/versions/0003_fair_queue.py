"""A fair queue: tenants, priorities, predicted costs, totals of what waits, one active dispatcher, idempotency keys."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_QUEUED = sa.text("state = 'queued'")
_KEYED = sa.text("idempotency_key IS NOT NULL")
_RENDERS = sa.table(
    "renders", sa.column("id", sa.BigInteger), sa.column("spec", sa.Text), sa.column("steps", sa.Integer)
)

# One row for each line, in bucket -1, and one for each 512 neighbouring renders of it: how many of them are queued, and
# what they cost. A position in the line is then a sum over few rows, however long the line. The database keeps it, so
# no statement can forget to. The line's own row comes first: who has it has the line, and nobody waits in a circle.
_ADD = """
    INSERT INTO queue_totals (tenant, priority, bucket, queued, cost_s)
    VALUES (NEW.tenant, NEW.priority, -1, 1, NEW.cost_s)
    ON CONFLICT (tenant, priority, bucket)
    DO UPDATE SET queued = queue_totals.queued + 1, cost_s = queue_totals.cost_s + NEW.cost_s;
    INSERT INTO queue_totals (tenant, priority, bucket, queued, cost_s)
    VALUES (NEW.tenant, NEW.priority, NEW.id / 512, 1, NEW.cost_s)
    ON CONFLICT (tenant, priority, bucket)
    DO UPDATE SET queued = queue_totals.queued + 1, cost_s = queue_totals.cost_s + NEW.cost_s;
"""
_SUBTRACT = """
    UPDATE queue_totals SET queued = queued - 1, cost_s = cost_s - OLD.cost_s
    WHERE tenant = OLD.tenant AND priority = OLD.priority AND bucket = -1;
    UPDATE queue_totals SET queued = queued - 1, cost_s = cost_s - OLD.cost_s
    WHERE tenant = OLD.tenant AND priority = OLD.priority AND bucket = OLD.id / 512;
    DELETE FROM queue_totals
    WHERE tenant = OLD.tenant AND priority = OLD.priority AND bucket IN (-1, OLD.id / 512) AND queued = 0;
"""
_TRIGGERS = {
    "renders_queued_by_insert": ("INSERT", "NEW.state = 'queued'", _ADD),
    "renders_queued_again": ("UPDATE OF state", "OLD.state <> 'queued' AND NEW.state = 'queued'", _ADD),
    "renders_taken": ("UPDATE OF state", "OLD.state = 'queued' AND NEW.state <> 'queued'", _SUBTRACT),
    "renders_queued_removed": ("DELETE", "OLD.state = 'queued'", _SUBTRACT),
}


def upgrade() -> None:
    """Add columns and tables; every render there is belongs to the tenant `default` with normal priority."""
    op.add_column("requests", sa.Column("tenant", sa.String(64), nullable=False, server_default="default"))
    op.add_column("requests", sa.Column("priority", sa.Integer, nullable=False, server_default=sa.text("1")))
    op.add_column("requests", sa.Column("idempotency_key", sa.String(255)))
    op.add_column("requests", sa.Column("body_digest", sa.String(64)))
    op.add_column("renders", sa.Column("tenant", sa.String(64), nullable=False, server_default="default"))
    op.add_column("renders", sa.Column("priority", sa.Integer, nullable=False, server_default=sa.text("1")))
    op.add_column("renders", sa.Column("cost_s", sa.Double, nullable=False, server_default=sa.text("0")))
    op.add_column("renders", sa.Column("steps", sa.Integer, nullable=False, server_default=sa.text("1")))
    _count_steps()
    op.create_index(
        "requests_idempotency",
        "requests",
        ["tenant", "idempotency_key"],
        unique=True,
        sqlite_where=_KEYED,
        postgresql_where=_KEYED,
    )
    op.drop_index("renders_queued", "renders")
    _index_of_queued("renders_of_line", ["tenant", "priority", "id"])
    _index_of_queued("renders_of_pair", ["pair_key", "tenant", "priority", "id"])
    _create_tables()
    _create_triggers()


def _count_steps() -> None:
    connection = op.get_bind()
    for row in connection.execute(sa.select(_RENDERS.c.id, _RENDERS.c.spec)).all():
        steps = json.loads(row.spec)["sample_steps"]
        connection.execute(_RENDERS.update().where(_RENDERS.c.id == row.id).values(steps=steps))


def _index_of_queued(name: str, columns: list[str]) -> None:
    op.create_index(name, "renders", columns, sqlite_where=_QUEUED, postgresql_where=_QUEUED)


def _create_tables() -> None:
    op.create_table(
        "queue_totals",
        sa.Column("tenant", sa.String(64), primary_key=True),
        sa.Column("priority", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("bucket", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("queued", sa.Integer, nullable=False),
        sa.Column("cost_s", sa.Double, nullable=False),
    )
    op.execute(
        "INSERT INTO queue_totals (tenant, priority, bucket, queued, cost_s) "
        "SELECT tenant, priority, id / 512, count(*), sum(cost_s) FROM renders WHERE state = 'queued' "
        "GROUP BY tenant, priority, id / 512"
    )
    op.execute(
        "INSERT INTO queue_totals (tenant, priority, bucket, queued, cost_s) "
        "SELECT tenant, priority, -1, sum(queued), sum(cost_s) FROM queue_totals GROUP BY tenant, priority"
    )
    op.create_table(
        "leaders",
        sa.Column("role", sa.String(32), primary_key=True),
        sa.Column("holder", sa.String(64), nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
        sa.Column("replicas", sa.Integer, nullable=False),
    )
    op.create_table(
        "render_costs",
        sa.Column("deployment", sa.String(128), primary_key=True),
        sa.Column("recipe", sa.String(16), primary_key=True),
        sa.Column("guided", sa.Boolean, primary_key=True),
        sa.Column("size_class", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("step_s", sa.Double, nullable=False),
        sa.Column("other_s", sa.Double, nullable=False),
        sa.Column("samples", sa.Integer, nullable=False),
    )


def _create_triggers() -> None:
    postgresql = op.get_bind().dialect.name == "postgresql"
    for name, (event, condition, body) in _TRIGGERS.items():
        if postgresql:
            op.execute(
                f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN NULL; END $$"
            )
            op.execute(
                f"CREATE TRIGGER {name} AFTER {event} ON renders FOR EACH ROW WHEN ({condition}) "
                f"EXECUTE FUNCTION {name}()"
            )
        else:
            op.execute(f"CREATE TRIGGER {name} AFTER {event} ON renders WHEN {condition} BEGIN {body} END")


def downgrade() -> None:
    """Drop what was added."""
    postgresql = op.get_bind().dialect.name == "postgresql"
    for name in _TRIGGERS:
        op.execute(f"DROP TRIGGER {name} ON renders" if postgresql else f"DROP TRIGGER {name}")
        if postgresql:
            op.execute(f"DROP FUNCTION {name}()")
    for table in ("render_costs", "leaders", "queue_totals"):
        op.drop_table(table)
    op.drop_index("renders_of_pair", "renders")
    op.drop_index("renders_of_line", "renders")
    _index_of_queued("renders_queued", ["id"])
    op.drop_index("requests_idempotency", "requests")
    for column in ("steps", "cost_s", "priority", "tenant"):
        op.drop_column("renders", column)
    for column in ("body_digest", "idempotency_key", "priority", "tenant"):
        op.drop_column("requests", column)
