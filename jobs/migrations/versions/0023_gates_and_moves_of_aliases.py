"""Gates of promotions, moves of aliases, and deleted versions whose objects are not removed yet."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

TABLE = "alias_moves"
VERSION = ["project_id", "name", "version"]


def upgrade() -> None:
    op.add_column("promotions", sa.Column("split", sa.Text(), nullable=True))
    op.add_column("promotions", sa.Column("rows", sa.BigInteger(), nullable=True))
    op.add_column(
        "promotions",
        sa.Column("min_rows", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
    )
    op.add_column("promotions", sa.Column("floors", JSONB(none_as_null=True), nullable=True))
    op.add_column("promotions", sa.Column("reports", JSONB(none_as_null=True), nullable=True))
    op.add_column(
        "model_versions", sa.Column("purge_at", sa.DateTime(timezone=True), nullable=True)
    )
    op.create_check_constraint(
        op.f("ck_model_versions_purge_of_deleted"),
        "model_versions",
        "purge_at IS NULL OR deleted_at IS NOT NULL",
    )
    op.create_index(
        op.f("ix_model_versions_purge_at"),
        "model_versions",
        ["purge_at"],
        postgresql_where=sa.text("purge_at IS NOT NULL"),
    )
    _create_moves()
    op.execute(_PROMOTIONS)
    op.execute(_MOVED_BY_HAND)


def _create_moves() -> None:
    op.create_table(
        TABLE,
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("alias", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("previous", sa.Integer(), nullable=True),
        sa.Column("how", sa.String(length=20), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=True),
        sa.Column(
            "at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "how IN ('set', 'promotion', 'rollback', 'removal')", name=op.f("ck_alias_moves_how")
        ),
        sa.CheckConstraint(
            "(how = 'removal') = (version IS NULL)", name=op.f("ck_alias_moves_removal_iff_none")
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_alias_moves_job_id")),
        sa.ForeignKeyConstraint(
            VERSION,
            [f"model_versions.{column}" for column in VERSION],
            name="fk_alias_moves_version",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alias_moves")),
    )
    op.create_index(
        op.f("ix_alias_moves_project_id_name_alias_id"),
        TABLE,
        ["project_id", "name", "alias", "id"],
    )


_PROMOTIONS = """
INSERT INTO alias_moves (project_id, name, alias, version, previous, how, job_id, at)
SELECT project_id, name, alias, version, incumbent, 'promotion', job_id, at
FROM promotions WHERE promoted ORDER BY id
"""

_MOVED_BY_HAND = """
INSERT INTO alias_moves (project_id, name, alias, version, previous, how, at)
SELECT a.project_id, a.name, a.alias, a.version, last.version, 'set', a.moved_at
FROM model_aliases a
LEFT JOIN LATERAL (
    SELECT m.version FROM alias_moves m
    WHERE (m.project_id, m.name, m.alias) = (a.project_id, a.name, a.alias)
    ORDER BY m.id DESC LIMIT 1
) last ON true
WHERE last.version IS DISTINCT FROM a.version
"""
# Where aliases point that a person has moved; moves of earlier days were not written down.


def downgrade() -> None:
    op.drop_table(TABLE)
    op.drop_index("ix_model_versions_purge_at", "model_versions")
    op.drop_constraint(op.f("ck_model_versions_purge_of_deleted"), "model_versions")
    op.drop_column("model_versions", "purge_at")
    for column in ("reports", "floors", "min_rows", "rows", "split"):
        op.drop_column("promotions", column)
