"""The index of a line holds all that a scheduling decision reads of a render, whose rows are wide."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_QUEUED = sa.text("state = 'queued'")
_LINE = ["tenant", "priority", "id"]


def upgrade() -> None:
    """Make the index anew, with more columns."""
    _make_anew([*_LINE, "pair_key", "created_at", "cost_s"])


def downgrade() -> None:
    """Make it as it was."""
    _make_anew(_LINE)


def _make_anew(columns: list[str]) -> None:
    op.drop_index("renders_of_line", "renders")
    op.create_index("renders_of_line", "renders", columns, sqlite_where=_QUEUED, postgresql_where=_QUEUED)
