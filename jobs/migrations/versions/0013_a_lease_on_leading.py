"""A lease with a fence for the leading control process; it was an advisory lock alone."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "control_status",
        sa.Column("fence", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
    )
    op.add_column(
        "control_status", sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True)
    )


def downgrade() -> None:
    op.drop_column("control_status", "lease_expires_at")
    op.drop_column("control_status", "fence")
