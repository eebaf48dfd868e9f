"""What creates have made, for clients that repeat one whose answer they did not get."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0036"
down_revision = "0035"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "creations",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("caller", sa.Text(), nullable=False),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("request_sha256", sa.Text(), nullable=False),
        sa.Column("idempotency_key", sa.Text()),
        sa.Column("made_id", sa.Text(), nullable=False),
        sa.Column("tries", JSONB(none_as_null=True), nullable=False),
        sa.Column("named_at", sa.DateTime(timezone=True)),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "(idempotency_key IS NULL) = (tries <> '{}')", name=op.f("ck_creations_key_or_tries")
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_creations_project_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_creations")),
        sa.UniqueConstraint(
            "project_id",
            "route",
            "idempotency_key",
            name=op.f("uq_creations_project_id_route_idempotency_key"),
        ),
    )
    op.create_index(
        op.f("ix_creations_caller_route_request_sha256"),
        "creations",
        ["caller", "route", "request_sha256"],
    )
    for column in ("made_id", "created_at"):
        op.create_index(op.f(f"ix_creations_{column}"), "creations", [column])


def downgrade() -> None:
    op.drop_table("creations")
