"""The query whose rows a job read, and its bounds."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("job_inputs", sa.Column("query", JSONB(), nullable=True))


def downgrade() -> None:
    op.drop_column("job_inputs", "query")
