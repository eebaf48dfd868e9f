"""Creates that a client may repeat because it got no answer; kept for a day."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Identity, Index, UniqueConstraint, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from jobs.tables.base import Base, Json


class Creation(Base):
    """What a request made; written in the transaction that made it."""

    __tablename__ = "creations"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    caller: Mapped[str]  # the sha256 of the API key
    route: Mapped[str]  # such as /v1/jobs
    request_sha256: Mapped[str]  # of the body; of an upload, of its fields and bytes
    idempotency_key: Mapped[str | None]  # of an upload; null: the request had none, and tries count
    made_id: Mapped[str]
    tries: Mapped[Json] = mapped_column(JSONB)  # by count, when each arrived; empty with a key
    named_at: Mapped[datetime | None]  # its client named made_id in a path; null: not yet
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        UniqueConstraint("project_id", "route", "idempotency_key"),
        CheckConstraint("(idempotency_key IS NULL) = (tries <> '{}')", name="key_or_tries"),
        Index(None, "caller", "route", "request_sha256"),
        Index(None, "made_id"),
        Index(None, "created_at"),
    )
