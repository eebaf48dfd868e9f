"""The table of what jobs read: each object of each corpus.

A planner writes it once, before it reads the first row. It outlives what else a deleted job had, so
that a schedule goes on knowing which objects it has taken.
"""

from __future__ import annotations

from sqlalchemy import CheckConstraint, ForeignKey, Index, Integer
from sqlalchemy.orm import Mapped, mapped_column

from jobs.tables.base import Base, Json


class JobInput(Base):
    """One object that a job reads."""

    __tablename__ = "job_inputs"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    split: Mapped[str] = mapped_column(primary_key=True)  # which corpus, as in ``shards``
    index: Mapped[int] = mapped_column(Integer, primary_key=True)  # in the order of reading
    name: Mapped[str]  # the id of an uploaded file, a URI, or `sql:` and the name of a source
    version: Mapped[str]  # changes when the content does
    bytes: Mapped[int]
    object_key: Mapped[str | None]  # in the object store; null: it is at the URI
    filename: Mapped[str | None]  # of an uploaded file; null: of others
    sha256: Mapped[str | None]  # null: not read to the end yet, or on the hub
    rows: Mapped[int | None]  # bad ones too; null: not read to the end yet
    query: Mapped[Json | None]  # of rows of a SQL source: its text, `since`, `until`, and `next`,
    # where the next fire begins; null: of other objects

    __table_args__ = (
        CheckConstraint("rows >= 0", name="rows_counted"),
        Index(None, "name"),
    )
