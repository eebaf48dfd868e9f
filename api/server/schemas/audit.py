"""What the API answers about the audit trail."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Self

from pydantic import BaseModel

from jobs import tables


class AuditEntry(BaseModel):
    """A request that changed something, or that a missing scope kept from it."""

    id: int
    at: datetime
    project: str
    key: str  # the id of the key
    address: str
    method: str
    route: str  # the template of the path
    object: str | None  # what the path names, or what was made
    status: int
    request_id: str  # as in the log of the API

    @classmethod
    def of(cls, entry: tables.AuditEntry) -> Self:
        """One entry."""
        return cls(
            id=entry.id,
            at=entry.at,
            project=entry.project_id,
            key=entry.key_id,
            address=entry.address,
            method=entry.method,
            route=entry.route,
            object=entry.object,
            status=entry.status,
            request_id=entry.request_id,
        )


class AuditPage(BaseModel):
    """Entries, newest first; ``next`` is the ``after`` of the next page."""

    object: Literal["list"] = "list"
    data: list[AuditEntry]
    has_more: bool
    next: int | None

    @classmethod
    def of(cls, entries: list[tables.AuditEntry], *, has_more: bool) -> Self:
        """One page."""
        shown = [AuditEntry.of(entry) for entry in entries]
        return cls(data=shown, has_more=has_more, next=shown[-1].id if has_more else None)
