"""What failed in each chunk by code, and how well the model could read its rows."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

COUNTS = ("rows_answered", "rows_truncated", "rows_near_tie", "tokens_read", "tokens_unknown")


def upgrade() -> None:
    op.add_column("chunks", sa.Column("errors", postgresql.JSONB(), nullable=True))
    for name in COUNTS:
        op.add_column("chunks", sa.Column(name, sa.BigInteger(), nullable=True))
    # It locks writers out while it is built, which is one pass over the table: who migrates holds
    # an advisory lock in a transaction, and an index built concurrently would wait for its end.
    op.create_index(
        "ix_chunks_failed",
        "chunks",
        ["job_id"],
        postgresql_include=["rows_failed"],
        postgresql_where=sa.text("rows_failed > 0"),
    )


def downgrade() -> None:
    op.drop_index("ix_chunks_failed", table_name="chunks")
    for name in ("errors", *COUNTS):
        op.drop_column("chunks", name)
