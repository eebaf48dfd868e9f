"""What the ledger keeps about the broker: the key of its messages, and messages that were refused.

Nothing here is about a job's progress: messages are hints (docs/decisions/0035).
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, Index, Integer, func, text
from sqlalchemy.orm import Mapped, mapped_column

from jobs.tables.base import Base


class MessageKey(Base):
    """The secret that signs messages; one row, made by the first process that needs it."""

    __tablename__ = "message_keys"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)  # always 1
    key: Mapped[bytes]
    made_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)


class RefusedMessage(Base):
    """A message that workers refused to act on, or that ended workers; a bounded number of rows."""

    __tablename__ = "refused_messages"

    digest: Mapped[str] = mapped_column(primary_key=True)  # sha256: of its bytes, or of the task
    # and arguments of one that control has signed
    queue: Mapped[str]
    reason: Mapped[str]  # workers.broker.envelope.Reason
    message: Mapped[str]  # the same in words; nothing that the sender wrote
    size: Mapped[int]  # bytes
    worker: Mapped[str]  # that refused it last
    times: Mapped[int] = mapped_column(Integer)  # it was refused
    deaths: Mapped[int] = mapped_column(  # of workers while they acted on it
        Integer, server_default=text("0")
    )
    job_id: Mapped[str | None]  # of one that control has signed; null: of the others
    first_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (Index(None, "last_at"),)
