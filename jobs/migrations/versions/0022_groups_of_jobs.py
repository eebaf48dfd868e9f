"""Jobs that were submitted together."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

TABLE = "job_groups"
LISTING = ["project_id", "created_at", "id"]


def upgrade() -> None:
    op.create_table(
        TABLE,
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("members", ARRAY(sa.Text()), nullable=False),
        sa.Column("swept", ARRAY(sa.Text()), nullable=True),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("request_sha256", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_job_groups_project_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job_groups")),
        sa.UniqueConstraint(
            "project_id", "idempotency_key", name=op.f("uq_job_groups_project_id_idempotency_key")
        ),
    )
    op.create_index(op.f("ix_job_groups_project_id_created_at_id"), TABLE, LISTING)
    op.add_column("jobs", sa.Column("group_id", sa.Text(), nullable=True))
    op.add_column("jobs", sa.Column("member", sa.Text(), nullable=True))
    op.create_foreign_key(op.f("fk_jobs_group_id"), "jobs", TABLE, ["group_id"], ["id"])
    op.create_index(
        op.f("ix_jobs_group_id"),
        "jobs",
        ["group_id"],
        postgresql_where=sa.text("group_id IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_jobs_group_id", "jobs")
    op.drop_constraint(op.f("fk_jobs_group_id"), "jobs")
    op.drop_column("jobs", "member")
    op.drop_column("jobs", "group_id")
    op.drop_table(TABLE)
