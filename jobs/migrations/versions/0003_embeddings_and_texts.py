"""Results that are vectors or texts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("embedding_width", sa.BigInteger(), nullable=True))
    op.add_column("result_rows", sa.Column("embedding", sa.ARRAY(sa.REAL()), nullable=True))
    op.add_column("result_rows", sa.Column("output", sa.Text(), nullable=True))
    op.add_column("result_rows", sa.Column("output_tokens", sa.BigInteger(), nullable=True))
    op.add_column("result_rows", sa.Column("finish_reason", sa.Text(), nullable=True))


def downgrade() -> None:
    for name in ("finish_reason", "output_tokens", "output", "embedding"):
        op.drop_column("result_rows", name)
    op.drop_column("jobs", "embedding_width")
