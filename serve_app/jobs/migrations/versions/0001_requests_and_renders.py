"""Requests and renders."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_QUEUED = sa.text("state = 'queued'")
_PROCESSING = sa.text("state = 'processing'")


def upgrade() -> None:
    """Create both tables and their indexes."""
    op.create_table(
        "requests",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
    )
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
        sa.Column("error_code", sa.String(64)),
        sa.Column("error_message", sa.Text),
        sqlite_autoincrement=True,
    )
    op.create_index("renders_of_request", "renders", ["request_id", "index"], unique=True)
    op.create_index("renders_queued", "renders", ["id"], sqlite_where=_QUEUED, postgresql_where=_QUEUED)
    op.create_index(
        "renders_leased",
        "renders",
        ["lease_expires_at"],
        sqlite_where=_PROCESSING,
        postgresql_where=_PROCESSING,
    )


def downgrade() -> None:
    """Drop both tables."""
    op.drop_table("renders")
    op.drop_table("requests")
