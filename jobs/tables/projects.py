"""The tables of projects and their keys.

``jobs.ledger.projects`` and ``jobs.ledger.keys`` write them (promise P9).
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    ARRAY,
    CheckConstraint,
    Computed,
    ForeignKey,
    Index,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from jobs.tables.base import Base, Json

SCOPES = "ARRAY['read', 'submit', 'admin', 'operate']"
"""As SQL: every scope of ``jobs.rights``."""


class Project(Base):
    """A tenant: owns keys, files and jobs."""

    __tablename__ = "projects"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(server_default=text("''"))  # for people; may be empty
    weight: Mapped[float] = mapped_column(server_default=text("1"))  # its share of a busy pool
    limits: Mapped[Json | None]  # jobs.tenancy.Limits; null: none
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    retention: Mapped[Json | None]  # jobs.retention.Retention as it was set; null: it never was
    retention_applied: Mapped[Json | None]  # the periods by which control has looked at its jobs
    # last; null: it has not yet
    retention_cursor: Mapped[str | None]  # the job up to which it looks at all of them again, by
    # age; empty: it begins; null: it has ended

    __table_args__ = (CheckConstraint("weight > 0", name="weight_positive"),)


class ApiKey(Base):
    """The right to act for a project; only the key's hash is kept."""

    __tablename__ = "api_keys"

    sha256: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(  # what it is called where others read it
        Computed("'key_' || left(sha256, 24)", persisted=True)
    )
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str] = mapped_column(server_default=text("''"))  # for people; may be empty
    hint: Mapped[str | None]  # its first characters; null: the key was not made here
    scopes: Mapped[list[str]] = mapped_column(  # jobs.rights.Scope; never changed
        ARRAY(Text), server_default=text("ARRAY['read', 'submit', 'admin']")
    )
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    created_by: Mapped[str | None]  # the id of a key; null: `ensure-key` made it valid
    expires_at: Mapped[datetime | None]  # not valid from then on; null: it does not expire
    last_used_at: Mapped[datetime | None]  # at most a minute behind; null: never
    revoked_at: Mapped[datetime | None]  # null: it was not
    replaced_by: Mapped[str | None] = mapped_column(  # the sha256 of the key that a rotation made;
        ForeignKey("api_keys.sha256")  # null: it was not rotated
    )

    __table_args__ = (
        UniqueConstraint("id"),
        CheckConstraint(f"cardinality(scopes) > 0 AND scopes <@ {SCOPES}", name="scopes_are_known"),
        Index(None, "project_id", "created_at", "id"),
    )
