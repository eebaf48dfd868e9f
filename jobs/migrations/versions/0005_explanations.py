"""Explanations of labels, beside them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("result_rows", sa.Column("explanation", JSONB(), nullable=True))


def downgrade() -> None:
    op.drop_column("result_rows", "explanation")
