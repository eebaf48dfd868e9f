"""How far chunks and evaluations are that are under way."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.add_column("chunks", sa.Column("begun_at", moment))
    op.add_column("chunks", sa.Column("share", sa.REAL()))
    op.add_column("chunks", sa.Column("share_at", moment))
    op.create_check_constraint(
        op.f("ck_chunks_share_whole"), "chunks", "(share IS NULL) = (share_at IS NULL)"
    )
    op.add_column("runs", sa.Column("evaluated_rows", sa.BigInteger()))
    op.add_column("runs", sa.Column("evaluation_rows", sa.BigInteger()))
    op.add_column("runs", sa.Column("evaluation_began_at", moment))
    op.create_check_constraint(
        op.f("ck_runs_evaluation_whole"),
        "runs",
        "num_nulls(evaluated_rows, evaluation_rows, evaluation_began_at) IN (0, 3)",
    )


def downgrade() -> None:
    op.drop_constraint(op.f("ck_runs_evaluation_whole"), "runs")
    for column in ("evaluation_began_at", "evaluation_rows", "evaluated_rows"):
        op.drop_column("runs", column)
    op.drop_constraint(op.f("ck_chunks_share_whole"), "chunks")
    for column in ("share_at", "share", "begun_at"):
        op.drop_column("chunks", column)
