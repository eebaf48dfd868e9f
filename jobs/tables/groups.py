"""The table of groups of jobs that were submitted together."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ARRAY, ForeignKey, Index, Text, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from jobs.tables.base import Base


class JobGroup(Base):
    """Jobs that were accepted together; the row goes when the last of them was removed."""

    __tablename__ = "job_groups"

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str | None]
    members: Mapped[list[str]] = mapped_column(ARRAY(Text))  # their names, in the order of the spec
    swept: Mapped[list[str] | None] = mapped_column(ARRAY(Text))  # paths of the options that a
    # sweep varies; null: it is no sweep
    idempotency_key: Mapped[str | None]  # the client's; null: none given
    request_sha256: Mapped[str]  # of the spec: distinguishes a repeated submit from a reused key
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        UniqueConstraint("project_id", "idempotency_key"),
        Index(None, "project_id", "created_at", "id"),
    )
