"""Rows of int8 jobs that were computed in float32 as well."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("chunks", sa.Column("rows_checked", sa.BigInteger(), nullable=True))
    op.add_column("chunks", sa.Column("rows_agreeing", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    for name in ("rows_agreeing", "rows_checked"):
        op.drop_column("chunks", name)
