"""What operators ask of workers, which look here with each heartbeat (docs/decisions/0053)."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, Identity, Index, Integer, func, text
from sqlalchemy.orm import Mapped, mapped_column

from jobs.orders import OPEN, OrderAction, OrderState
from jobs.tables.base import Base, one_of

_OPEN = ", ".join(repr(state.value) for state in sorted(OPEN))


class Order(Base):
    """One order to one worker; a bounded number of rows."""

    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    worker: Mapped[str]  # its name among Celery's, which no other process ever has
    action: Mapped[OrderAction]
    processes: Mapped[int | None] = mapped_column(Integer)  # to grow or shrink by; else null
    task_id: Mapped[str | None]  # whose process is to end; null: of any other action
    chunk_id: Mapped[int | None]  # that was released from that process; null: it was no chunk
    fence: Mapped[int | None]  # under which that process held it
    asked_by: Mapped[str]  # the login in Flower
    state: Mapped[OrderState] = mapped_column(server_default=text("'waiting'"))
    result: Mapped[str | None]  # in words; null: none yet
    asked_at: Mapped[datetime] = mapped_column(server_default=func.now())
    due_at: Mapped[datetime] = mapped_column(server_default=func.now())  # not before
    taken_at: Mapped[datetime | None]  # null: not yet, or never
    ended_at: Mapped[datetime | None]  # set if and only if it is over

    __table_args__ = (
        CheckConstraint(one_of("action", OrderAction), name="action"),
        CheckConstraint(one_of("state", OrderState), name="state"),
        CheckConstraint(
            "(action IN ('grow', 'shrink')) = (processes IS NOT NULL)", name="processes_whole"
        ),
        CheckConstraint("(action = 'end_process') = (task_id IS NOT NULL)", name="task_whole"),
        CheckConstraint("(chunk_id IS NULL) = (fence IS NULL)", name="lease_whole"),
        CheckConstraint(f"(state IN ({_OPEN})) = (ended_at IS NULL)", name="ended_iff_over"),
        Index(None, "worker", "id"),
        Index("ix_orders_chunk", "chunk_id", postgresql_where=text("chunk_id IS NOT NULL")),
    )
