"""Tombstones of deleted jobs and files, and when what is left of them is removed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0011"
branch_labels = None
depends_on = None

LISTING = ("project_id", "created_at", "id")


def upgrade() -> None:
    for table in ("jobs", "files"):
        listing = f"ix_{table}_project_id_created_at_id"
        op.add_column(table, sa.Column("deleted_at", sa.DateTime(timezone=True)))
        op.add_column(table, sa.Column("purge_at", sa.DateTime(timezone=True)))
        op.drop_index(listing, table)
        op.create_index(listing, table, LISTING, postgresql_where=sa.text("deleted_at IS NULL"))
        op.create_index(
            f"ix_{table}_purge_at",
            table,
            ["purge_at"],
            postgresql_where=sa.text("purge_at IS NOT NULL"),
        )
        op.create_check_constraint(
            op.f(f"ck_{table}_purge_of_deleted"),
            table,
            "purge_at IS NULL OR deleted_at IS NOT NULL",
        )
    op.create_check_constraint(
        op.f("ck_jobs_deleted_after_end"), "jobs", "deleted_at IS NULL OR finished_at IS NOT NULL"
    )


def downgrade() -> None:
    op.drop_constraint(op.f("ck_jobs_deleted_after_end"), "jobs")
    for table in ("jobs", "files"):
        listing = f"ix_{table}_project_id_created_at_id"
        op.drop_constraint(op.f(f"ck_{table}_purge_of_deleted"), table)
        op.drop_index(f"ix_{table}_purge_at", table)
        op.drop_index(listing, table)
        op.create_index(listing, table, LISTING)
        op.drop_column(table, "purge_at")
        op.drop_column(table, "deleted_at")
