"""Numbers of chunks for messages, and an index for the listing of all projects."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None

INDEX = "ix_jobs_created_at_id"


def upgrade() -> None:
    op.add_column("chunks", sa.Column("number", sa.Integer(), nullable=True))
    op.add_column("jobs", sa.Column("chunks_planned", sa.Integer(), nullable=True))
    # Afterwards: jobs that are there already have chunks without numbers.
    op.alter_column("jobs", "chunks_planned", server_default=sa.text("0"))
    # It locks writers out while it is built, which is one pass over the table of jobs.
    op.create_index(
        INDEX, "jobs", ["created_at", "id"], postgresql_where=sa.text("deleted_at IS NULL")
    )


def downgrade() -> None:
    op.drop_index(INDEX, "jobs")
    op.drop_column("jobs", "chunks_planned")
    op.drop_column("chunks", "number")
