"""Jobs that wait for other jobs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

TABLE = "job_dependencies"


def upgrade() -> None:
    op.add_column(
        "jobs", sa.Column("held", sa.Boolean(), server_default=sa.text("false"), nullable=False)
    )
    op.create_check_constraint(
        op.f("ck_jobs_held_before_it_begins"),
        "jobs",
        "NOT held OR state NOT IN ('planning', 'running', 'finalizing', 'succeeded')",
    )
    op.create_unique_constraint("uq_jobs_project_id_id", "jobs", ["project_id", "id"])
    op.create_index(
        "ix_jobs_held", "jobs", ["id"], postgresql_where=sa.text("held AND state = 'queued'")
    )
    op.create_table(
        TABLE,
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("needs_job_id", sa.Text(), nullable=False),
        sa.Column("on", sa.Text(), nullable=False),
        sa.Column("gives_model", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.CheckConstraint("\"on\" IN ('success', 'end')", name=op.f("ck_job_dependencies_on")),
        sa.CheckConstraint("job_id <> needs_job_id", name=op.f("ck_job_dependencies_another_job")),
        sa.CheckConstraint(
            "NOT gives_model OR \"on\" = 'success'",
            name=op.f("ck_job_dependencies_model_of_success"),
        ),
        *(
            sa.ForeignKeyConstraint(
                ["project_id", column],
                ["jobs.project_id", "jobs.id"],
                name=op.f(f"fk_job_dependencies_{column}"),
            )
            for column in ("job_id", "needs_job_id")
        ),
        sa.PrimaryKeyConstraint("job_id", "needs_job_id", name=op.f("pk_job_dependencies")),
    )
    op.create_index(op.f("ix_job_dependencies_needs_job_id"), TABLE, ["needs_job_id"])


def downgrade() -> None:
    op.drop_table(TABLE)
    op.drop_index("ix_jobs_held", "jobs")
    op.drop_constraint("uq_jobs_project_id_id", "jobs")
    op.drop_constraint(op.f("ck_jobs_held_before_it_begins"), "jobs")
    op.drop_column("jobs", "held")
