"""How long things are kept, what was removed, and what the object store holds."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None

PIECES = ("shards", "parts", "outputs", "checkpoints", "rows", "logs", "jobs")
THERE = sa.text("deleted_at IS NULL")
ENDED = sa.text("finished_at IS NOT NULL AND deleted_at IS NULL")


def _moment(name: str, *, nullable: bool = True) -> sa.Column[object]:
    now = None if nullable else sa.text("now()")
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable, server_default=now)


def upgrade() -> None:
    op.add_column("projects", sa.Column("retention", JSONB(none_as_null=True)))
    op.add_column("projects", sa.Column("retention_applied", JSONB(none_as_null=True)))
    op.add_column("projects", sa.Column("retention_cursor", sa.Text()))
    op.add_column(
        "jobs", sa.Column("kept", sa.Boolean(), server_default=sa.text("false"), nullable=False)
    )
    op.add_column("jobs", sa.Column("retention", JSONB(none_as_null=True)))
    op.add_column(
        "jobs",
        sa.Column(
            "retention_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("'1970-01-01 00:00:00+00'"),
            nullable=False,
        ),
    )
    op.add_column("files", _moment("used_at"))
    op.create_table(
        "removals",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("piece", sa.Text(), nullable=False),
        _moment("at", nullable=False),
        _moment("purge_at"),
        sa.CheckConstraint(
            f"piece IN ({', '.join(map(repr, PIECES))})", name=op.f("ck_removals_piece")
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_removals_job_id")),
        sa.PrimaryKeyConstraint("job_id", "piece", name=op.f("pk_removals")),
    )
    op.create_index(
        op.f("ix_removals_purge_at"),
        "removals",
        ["purge_at"],
        postgresql_where=sa.text("purge_at IS NOT NULL"),
    )
    op.create_table(
        "collection_rounds",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("fence", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        _moment("lease_expires_at"),
        _moment("ended_at", nullable=False),
        _moment("measured_at"),
        sa.CheckConstraint("id = 1", name=op.f("ck_collection_rounds_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_collection_rounds")),
    )
    op.create_table(
        "storage_usage",
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("objects", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "kind", name=op.f("pk_storage_usage")),
    )
    for name, table, columns, where in INDEXES:
        op.create_index(op.f(name), table, columns, postgresql_where=where)


INDEXES = (
    ("ix_jobs_retention_at", "jobs", ["retention_at"], ENDED),
    ("ix_jobs_kept", "jobs", ["project_id"], sa.text("kept")),
    ("ix_files_object_key", "files", ["object_key"], None),
    ("ix_files_project_id_sha256", "files", ["project_id", "sha256"], THERE),
    ("ix_fires_ended", "fires", ["schedule_id", "ended_at"], None),
)


def downgrade() -> None:
    for name, table, *_ in INDEXES:
        op.drop_index(name, table)
    for table in ("storage_usage", "collection_rounds", "removals"):
        op.drop_table(table)
    op.drop_column("files", "used_at")
    for column in ("retention_at", "retention", "kept"):
        op.drop_column("jobs", column)
    for column in ("retention_cursor", "retention_applied", "retention"):
        op.drop_column("projects", column)
