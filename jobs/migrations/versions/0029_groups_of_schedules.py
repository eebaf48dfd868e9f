"""Jobs that were skipped, and templates of schedules whose jobs have names."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("skipped", sa.Text(), nullable=True))
    # A name makes a member of a group from now on; until now the only job could have one, which
    # meant nothing.
    op.execute(
        "UPDATE schedule_versions SET definition = jsonb_set(definition, '{jobs,0,name}', 'null') "
        "WHERE jsonb_array_length(definition -> 'jobs') = 1 "
        "AND definition #>> '{jobs,0,name}' IS NOT NULL"
    )


def downgrade() -> None:
    op.drop_column("jobs", "skipped")
