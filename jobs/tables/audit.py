"""The table of the audit trail; ``jobs.ledger.audit`` writes it, and nothing changes a row."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Identity, Index, Integer, func
from sqlalchemy.orm import Mapped, mapped_column

from jobs.tables.base import Base


class AuditEntry(Base):
    """A request that changed something, or that a missing scope kept from it."""

    __tablename__ = "audit_entries"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    project_id: Mapped[str]  # for which the key acts
    key_id: Mapped[str]
    address: Mapped[str]  # where the request came from, as the server sees it
    method: Mapped[str]
    route: Mapped[str]  # the template of its path
    object: Mapped[str | None]  # what the path names, or what was made; null: nothing
    status: Mapped[int] = mapped_column(Integer)  # of the answer
    request_id: Mapped[str]  # as in the log of the API

    __table_args__ = (Index(None, "project_id", "id"), Index(None, "at"))
