"""What jobs read, object by object, and tags of uploaded files."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

TABLE = "job_inputs"


def upgrade() -> None:
    op.create_table(
        TABLE,
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("split", sa.Text(), nullable=False),
        sa.Column("index", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("object_key", sa.Text(), nullable=True),
        sa.Column("filename", sa.Text(), nullable=True),
        sa.Column("sha256", sa.Text(), nullable=True),
        sa.Column("rows", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_inputs_job_id")),
        sa.PrimaryKeyConstraint("job_id", "split", "index", name=op.f("pk_job_inputs")),
        sa.CheckConstraint("rows >= 0", name=op.f("ck_job_inputs_rows_counted")),
    )
    op.create_index(op.f("ix_job_inputs_name"), TABLE, ["name"])
    op.add_column("jobs", sa.Column("inputs_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("files", sa.Column("tag", sa.Text(), nullable=True))
    op.create_index(
        op.f("ix_files_tag"),
        "files",
        ["project_id", "tag", "created_at", "id"],
        postgresql_where=sa.text("tag IS NOT NULL AND deleted_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_files_tag", "files")
    op.drop_column("files", "tag")
    op.drop_column("jobs", "inputs_at")
    op.drop_table(TABLE)
