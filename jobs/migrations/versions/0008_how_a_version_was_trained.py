"""How a version was trained, and how a job reads its rows."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("model_versions", sa.Column("signature", JSONB(), nullable=True))
    op.add_column("jobs", sa.Column("reading", JSONB(), nullable=True))


def downgrade() -> None:
    op.drop_column("jobs", "reading")
    op.drop_column("model_versions", "signature")
