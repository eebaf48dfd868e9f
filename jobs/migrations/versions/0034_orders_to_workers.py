"""Orders of operators to workers, and the names of hosts' agents among Celery's workers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0034"
down_revision = "0033"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "orders",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("action", sa.String(20), nullable=False),
        sa.Column("processes", sa.Integer(), nullable=True),
        sa.Column("task_id", sa.Text(), nullable=True),
        sa.Column("chunk_id", sa.BigInteger(), nullable=True),
        sa.Column("fence", sa.BigInteger(), nullable=True),
        sa.Column("asked_by", sa.Text(), nullable=False),
        sa.Column("state", sa.String(20), server_default=sa.text("'waiting'"), nullable=False),
        sa.Column("result", sa.Text(), nullable=True),
        sa.Column(
            "asked_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column(
            "due_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("taken_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "action IN ('shut_down', 'restart_pool', 'grow', 'shrink', 'end_process')",
            name=op.f("ck_orders_action"),
        ),
        sa.CheckConstraint(
            "state IN ('waiting', 'taken', 'done', 'refused', 'expired')",
            name=op.f("ck_orders_state"),
        ),
        sa.CheckConstraint(
            "(action IN ('grow', 'shrink')) = (processes IS NOT NULL)",
            name=op.f("ck_orders_processes_whole"),
        ),
        sa.CheckConstraint(
            "(action = 'end_process') = (task_id IS NOT NULL)", name=op.f("ck_orders_task_whole")
        ),
        sa.CheckConstraint(
            "(chunk_id IS NULL) = (fence IS NULL)", name=op.f("ck_orders_lease_whole")
        ),
        sa.CheckConstraint(
            "(state IN ('taken', 'waiting')) = (ended_at IS NULL)",
            name=op.f("ck_orders_ended_iff_over"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_orders")),
    )
    op.create_index(op.f("ix_orders_worker_id"), "orders", ["worker", "id"])
    op.create_index(
        "ix_orders_chunk",
        "orders",
        ["chunk_id"],
        postgresql_where=sa.text("chunk_id IS NOT NULL"),
    )
    op.add_column("hosts", sa.Column("worker", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("hosts", "worker")
    op.drop_table("orders")
