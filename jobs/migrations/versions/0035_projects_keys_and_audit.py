"""Names and limits of projects; names, scopes, ends and rotation of keys; the audit trail.

Keys that are there get every scope but `operate`, which those of the project `default` get too.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0035"
down_revision = "0034"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
SCOPES = "ARRAY['read', 'submit', 'admin', 'operate']"
DEFAULT_SCOPES = "ARRAY['read', 'submit', 'admin']"
KEYS = "api_keys"


def upgrade() -> None:
    empty = sa.text("''")
    op.add_column("projects", sa.Column("name", sa.Text(), server_default=empty, nullable=False))
    op.add_column(
        "projects", sa.Column("limits", postgresql.JSONB(none_as_null=True), nullable=True)
    )
    for column in (
        sa.Column(
            "id",
            sa.Text(),
            sa.Computed("'key_' || left(sha256, 24)", persisted=True),
            nullable=False,
        ),
        sa.Column("name", sa.Text(), server_default=empty, nullable=False),
        sa.Column("hint", sa.Text(), nullable=True),
        sa.Column(
            "scopes", sa.ARRAY(sa.Text()), server_default=sa.text(DEFAULT_SCOPES), nullable=False
        ),
        sa.Column("created_by", sa.Text(), nullable=True),
        sa.Column("expires_at", TIME, nullable=True),
        sa.Column("last_used_at", TIME, nullable=True),
        sa.Column("replaced_by", sa.Text(), nullable=True),
    ):
        op.add_column(KEYS, column)
    op.execute(
        "UPDATE api_keys SET scopes = ARRAY['read', 'submit', 'admin', 'operate'] "
        "WHERE project_id = 'default'"
    )
    op.create_foreign_key(op.f("fk_api_keys_replaced_by"), KEYS, KEYS, ["replaced_by"], ["sha256"])
    op.create_unique_constraint(op.f("uq_api_keys_id"), KEYS, ["id"])
    op.create_check_constraint(
        op.f("ck_api_keys_scopes_are_known"),
        KEYS,
        f"cardinality(scopes) > 0 AND scopes <@ {SCOPES}",
    )
    op.create_index(
        op.f("ix_api_keys_project_id_created_at_id"), KEYS, ["project_id", "created_at", "id"]
    )
    op.create_table(
        "audit_entries",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("object", sa.Text(), nullable=True),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_entries")),
    )
    for columns in (["project_id", "id"], ["at"]):
        name = op.f(f"ix_audit_entries_{'_'.join(columns)}")
        op.create_index(name, "audit_entries", columns)


def downgrade() -> None:
    op.drop_table("audit_entries")
    op.drop_index(op.f("ix_api_keys_project_id_created_at_id"), KEYS)
    op.drop_constraint(op.f("ck_api_keys_scopes_are_known"), KEYS)
    op.drop_constraint(op.f("uq_api_keys_id"), KEYS)
    op.drop_constraint(op.f("fk_api_keys_replaced_by"), KEYS)
    for column in (
        *("replaced_by", "last_used_at", "expires_at", "created_by"),
        *("scopes", "hint", "name", "id"),
    ):
        op.drop_column(KEYS, column)
    op.drop_column("projects", "limits")
    op.drop_column("projects", "name")
