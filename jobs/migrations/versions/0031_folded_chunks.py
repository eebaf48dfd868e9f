"""Chunks of jobs that ended long ago, in objects.

A garbage collector of the version before would take the parts of folded chunks, which no row names.
The lease of a round has another name from now on, so that such a collector begins no round, and
breaks off the one that it is at.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None

PIECES = ("shards", "parts", "outputs", "checkpoints", "rows", "logs", "jobs")
COUNTS = (
    *("chunks", "pending", "done", "damaged", "rows", "rows_failed", "tokens"),
    *("rows_checked", "rows_agreeing", "rows_answered", "rows_truncated", "rows_near_tie"),
    *("tokens_read", "tokens_unknown"),
)
SUMS = ("histogram", "errors", "profile")


def upgrade() -> None:
    op.create_table(
        "chunk_folds",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("first_row", sa.BigInteger(), nullable=False),
        sa.Column("end_row", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text()),
        sa.Column("bytes", sa.BigInteger()),
        sa.Column("damage", sa.Text()),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in COUNTS),
        sa.Column("seconds", sa.Double(), nullable=False),
        *(sa.Column(name, JSONB(none_as_null=True), nullable=False) for name in SUMS),
        sa.CheckConstraint(
            "(sha256 IS NULL) = (bytes IS NULL)", name=op.f("ck_chunk_folds_written_whole")
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_chunk_folds_job_id")),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_chunk_folds")),
    )
    op.create_index(op.f("ix_chunk_folds_job_id_first_row"), "chunk_folds", ["job_id", "first_row"])
    op.create_table(
        "folded_damage",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("chunk_id", sa.BigInteger(), nullable=False),
        sa.Column("part_key", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_folded_damage_job_id")),
        sa.PrimaryKeyConstraint("job_id", "chunk_id", name=op.f("pk_folded_damage")),
    )
    op.create_index(
        op.f("ix_chunks_split"), "chunks", ["job_id"], postgresql_where=sa.text("state = 'split'")
    )
    op.alter_column("collection_rounds", "lease_expires_at", new_column_name="leased_until")
    _allow(*PIECES, "chunks")


def downgrade() -> None:
    """Refused where chunks are folded: an earlier version would not find them."""
    folded = op.get_bind().scalar(sa.text("SELECT count(*) FROM chunk_folds"))
    if folded:
        raise RuntimeError("chunks are folded: bring back the backup from before the upgrade")
    op.execute("DELETE FROM removals WHERE piece = 'chunks'")
    _allow(*PIECES)
    op.alter_column("collection_rounds", "leased_until", new_column_name="lease_expires_at")
    op.drop_index(op.f("ix_chunks_split"), "chunks")
    op.drop_table("folded_damage")
    op.drop_table("chunk_folds")


def _allow(*pieces: str) -> None:
    op.drop_constraint(op.f("ck_removals_piece"), "removals")
    op.create_check_constraint(
        op.f("ck_removals_piece"), "removals", f"piece IN ({', '.join(map(repr, pieces))})"
    )
