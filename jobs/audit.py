"""What the audit trail keeps of a request."""

from __future__ import annotations

from dataclasses import dataclass

LONGEST_OBJECT = 300
"""Characters that are kept of what a path names."""


@dataclass(frozen=True)
class Entry:
    """Who did what, from where, and how it was answered."""

    project_id: str
    key_id: str
    address: str
    method: str
    route: str  # the template of the path
    object: str | None
    status: int
    request_id: str
