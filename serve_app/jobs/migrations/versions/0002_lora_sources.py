"""LoRAs from anywhere: a place for tokens while they are needed, and specs that say where a LoRA lies."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_RENDERS = sa.table("renders", sa.column("id", sa.BigInteger), sa.column("spec", sa.Text))


def upgrade() -> None:
    """Create the table; in every spec, `file` becomes `location`, and the digest is the content's identity."""
    op.create_table(
        "request_tokens",
        sa.Column("request_id", sa.String(36), sa.ForeignKey("requests.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("hf_token", sa.Text, nullable=False),
    )
    connection = op.get_bind()
    for row in connection.execute(sa.select(_RENDERS.c.id, _RENDERS.c.spec)).all():
        spec = json.loads(row.spec)
        for lora in spec["loras"]:
            lora["location"] = lora.pop("file")
            lora["content"] = lora["sha256"]
        connection.execute(_RENDERS.update().where(_RENDERS.c.id == row.id).values(spec=json.dumps(spec)))


def downgrade() -> None:
    """Drop the table; specs get back the names that they had."""
    connection = op.get_bind()
    for row in connection.execute(sa.select(_RENDERS.c.id, _RENDERS.c.spec)).all():
        spec = json.loads(row.spec)
        for lora in spec["loras"]:
            lora["file"] = lora.pop("location")
            del lora["content"]
        connection.execute(_RENDERS.update().where(_RENDERS.c.id == row.id).values(spec=json.dumps(spec)))
    op.drop_table("request_tokens")
