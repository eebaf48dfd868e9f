"""How long what fails has been failing, and the hashes of parts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

COUNTS = (("jobs", "step_failures"), ("chunks", "engine_faults"))
TIMES = (
    ("jobs", "step_failing_since"),
    ("jobs", "step_not_before"),
    ("chunks", "failing_since"),
)
WORDS = (("chunks", "part_sha256"), ("chunks", "damage"))


def upgrade() -> None:
    for table, name in COUNTS:
        op.add_column(
            table, sa.Column(name, sa.Integer(), server_default=sa.text("0"), nullable=False)
        )
    for table, name in TIMES:
        op.add_column(table, sa.Column(name, sa.DateTime(timezone=True), nullable=True))
    for table, name in WORDS:
        op.add_column(table, sa.Column(name, sa.Text(), nullable=True))


def downgrade() -> None:
    for table, name in (*COUNTS, *TIMES, *WORDS):
        op.drop_column(table, name)
