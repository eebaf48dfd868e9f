"""Schedules, their versions and fires; which fire a job comes from."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0020"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    time = sa.DateTime(timezone=True)
    now = sa.text("now()")
    op.create_table(
        "schedules",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("request_sha256", sa.Text(), nullable=False),
        sa.Column("created_at", time, server_default=now, nullable=False),
        sa.Column("cursor", time, nullable=False),
        sa.Column("cursor_local", sa.Text(), nullable=True),
        sa.Column("fired", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("next_due", time, nullable=True),
        sa.Column("next_at", time, nullable=True),
        sa.Column("paused_at", time, nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("deleted_at", time, nullable=True),
        sa.CheckConstraint(
            "(next_due IS NULL) = (next_at IS NULL)", name=op.f("ck_schedules_next_whole")
        ),
        sa.CheckConstraint(
            "next_at IS NULL OR (paused_at IS NULL AND deleted_at IS NULL)",
            name=op.f("ck_schedules_next_of_active"),
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_schedules_project_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schedules")),
        sa.UniqueConstraint(
            "project_id", "idempotency_key", name=op.f("uq_schedules_project_id_idempotency_key")
        ),
    )
    alive = sa.text("deleted_at IS NULL")
    op.create_index(
        "uq_schedules_project_id_name",
        "schedules",
        ["project_id", "name"],
        unique=True,
        postgresql_where=alive,
    )
    op.create_index(
        op.f("ix_schedules_project_id_created_at_id"),
        "schedules",
        ["project_id", "created_at", "id"],
        postgresql_where=alive,
    )
    op.create_index(
        op.f("ix_schedules_next_at"),
        "schedules",
        ["next_at"],
        postgresql_where=sa.text("next_at IS NOT NULL"),
    )
    op.create_table(
        "schedule_versions",
        sa.Column("schedule_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("definition", postgresql.JSONB(none_as_null=True), nullable=False),
        sa.Column("made_by", sa.Text(), nullable=False),
        sa.Column("made_at", time, server_default=now, nullable=False),
        sa.ForeignKeyConstraint(
            ["schedule_id"], ["schedules.id"], name=op.f("fk_schedule_versions_schedule_id")
        ),
        sa.PrimaryKeyConstraint("schedule_id", "version", name=op.f("pk_schedule_versions")),
    )
    op.create_table(
        "fires",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("schedule_id", sa.Text(), nullable=False),
        sa.Column("due", time, nullable=False),
        sa.Column("local", sa.Text(), nullable=False),
        sa.Column("until", time, nullable=True),
        sa.Column("count", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("origin", sa.String(20), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("made_at", time, server_default=now, nullable=False),
        sa.Column("submitted_at", time, nullable=True),
        sa.Column("ended_at", time, nullable=True),
        sa.Column("cancel_at", time, nullable=True),
        sa.Column("to_follow", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("backfill", sa.Text(), nullable=True),
        sa.Column("at_most", sa.Integer(), nullable=True),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "state IN ('buffered', 'submitted', 'succeeded', 'failed', 'skipped', 'missed', 'cancelled')",
            name=op.f("ck_fires_state"),
        ),
        sa.CheckConstraint(
            "origin IN ('calendar', 'trigger', 'backfill')", name=op.f("ck_fires_origin")
        ),
        sa.CheckConstraint(
            "(state IN ('buffered', 'submitted')) = (ended_at IS NULL)",
            name=op.f("ck_fires_ended_iff_final"),
        ),
        sa.CheckConstraint(
            "(backfill IS NULL) = (at_most IS NULL)", name=op.f("ck_fires_backfill_whole")
        ),
        sa.ForeignKeyConstraint(
            ["schedule_id"], ["schedules.id"], name=op.f("fk_fires_schedule_id")
        ),
        sa.ForeignKeyConstraint(
            ["schedule_id", "version"],
            ["schedule_versions.schedule_id", "schedule_versions.version"],
            name=op.f("fk_fires_schedule_id_version"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_fires")),
        sa.UniqueConstraint("schedule_id", "due", name=op.f("uq_fires_schedule_id_due")),
        sa.UniqueConstraint(
            "schedule_id", "idempotency_key", name=op.f("uq_fires_schedule_id_idempotency_key")
        ),
    )
    op.create_index(
        "ix_fires_open",
        "fires",
        ["schedule_id", "state", "due"],
        postgresql_where=sa.text("state IN ('buffered', 'submitted')"),
    )
    op.create_index("ix_fires_to_follow", "fires", ["id"], postgresql_where=sa.text("to_follow"))
    op.add_column("jobs", sa.Column("fire_id", sa.BigInteger(), nullable=True))
    op.create_foreign_key(op.f("fk_jobs_fire_id"), "jobs", "fires", ["fire_id"], ["id"])
    op.create_index(
        op.f("ix_jobs_fire_id"),
        "jobs",
        ["fire_id"],
        postgresql_where=sa.text("fire_id IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index(op.f("ix_jobs_fire_id"), "jobs")
    op.drop_constraint(op.f("fk_jobs_fire_id"), "jobs")
    op.drop_column("jobs", "fire_id")
    op.drop_table("fires")
    op.drop_table("schedule_versions")
    op.drop_table("schedules")
