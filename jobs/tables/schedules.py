"""The tables of schedules: what is fired when, each version of it, and each fire.

``jobs.ledger.schedules`` and ``jobs.ledger.fires`` write them (promise P8).
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from jobs.schedules.states import FireOrigin, FireState
from jobs.tables.base import Base, Json, one_of


class Schedule(Base):
    """What is fired, when next, and up to where its calendar was read."""

    __tablename__ = "schedules"

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str]  # no two of a project have the same, deleted ones aside
    version: Mapped[int] = mapped_column(Integer)  # the one of ``schedule_versions`` that counts
    idempotency_key: Mapped[str | None]  # of its creation; null: none given
    request_sha256: Mapped[str]  # of its creation, as of a job
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    # Written under the row's lock, together with the fires that follow from it.
    cursor: Mapped[datetime]  # no fire time up to then is looked at again
    cursor_local: Mapped[str | None]  # the wall time of the last fire, ISO 8601 with its offset;
    # null: none since the timing was set
    fired: Mapped[int] = mapped_column(server_default=text("0"))  # fire times let go, for max_fires
    next_due: Mapped[datetime | None]  # the next fire time; null: paused, or there is none
    next_at: Mapped[datetime | None]  # when control lets it go: with the jitter; null as next_due

    paused_at: Mapped[datetime | None]  # null: it is not paused
    note: Mapped[str | None]  # why it was paused or resumed last, in the words of who did it
    deleted_at: Mapped[datetime | None]  # the row stays as a tombstone; null: its owner sees it

    __table_args__ = (
        UniqueConstraint("project_id", "idempotency_key"),
        CheckConstraint("(next_due IS NULL) = (next_at IS NULL)", name="next_whole"),
        CheckConstraint(
            "next_at IS NULL OR (paused_at IS NULL AND deleted_at IS NULL)", name="next_of_active"
        ),
        Index(
            "uq_schedules_project_id_name",
            "project_id",
            "name",
            unique=True,
            postgresql_where=text("deleted_at IS NULL"),
        ),
        Index(None, "project_id", "created_at", "id", postgresql_where=text("deleted_at IS NULL")),
        Index(None, "next_at", postgresql_where=text("next_at IS NOT NULL")),
    )


class ScheduleVersion(Base):
    """What a schedule was from one edit to the next; never changed."""

    __tablename__ = "schedule_versions"

    schedule_id: Mapped[str] = mapped_column(ForeignKey("schedules.id"), primary_key=True)
    version: Mapped[int] = mapped_column(Integer, primary_key=True)  # from 1
    definition: Mapped[Json]  # jobs.schedules.definition.Definition: timing, policy, jobs
    made_by: Mapped[str]  # the sha256 of the key that made it, whose rights its fires use
    made_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Fire(Base):
    """One fire time of a schedule, or one trigger, and how it ended; unique by both."""

    __tablename__ = "fires"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    schedule_id: Mapped[str] = mapped_column(ForeignKey("schedules.id"))
    due: Mapped[datetime]  # the fire time without jitter; of a trigger: when it was asked for
    local: Mapped[str]  # the same as wall time in the zone of the schedule, ISO 8601
    until: Mapped[datetime | None]  # the last of missed fires in a row; null: it stands for itself
    count: Mapped[int] = mapped_column(server_default=text("1"))  # how many missed fires in a row
    version: Mapped[int] = mapped_column(Integer)  # of the schedule
    origin: Mapped[FireOrigin]
    state: Mapped[FireState]  # of its jobs together, once they were accepted
    reason: Mapped[str | None]  # why it waits, has no job, or failed, in words; null: it has a job
    made_at: Mapped[datetime] = mapped_column(server_default=func.now())
    submitted_at: Mapped[datetime | None]  # its jobs were accepted; null: it has none
    ended_at: Mapped[datetime | None]  # set if and only if the state is final
    cancel_at: Mapped[datetime | None]  # its jobs are cancelled for a later fire; null: not
    to_follow: Mapped[bool] = mapped_column(  # it has ended or must be cancelled, and control has
        Boolean,
        server_default=text("false"),  # not yet done what follows from that
    )
    backfill: Mapped[str | None]  # which backfill asked for it; null: none did
    at_most: Mapped[int | None] = mapped_column(Integer)  # of that, fires that may run at a time
    idempotency_key: Mapped[str | None]  # of a trigger; null: none given
    profile: Mapped[Json | None]  # how the results of its bulk job are spread, for later fires
    # (jobs.decisions.drift.Profile); of a group by its `members`; null: the policy asked for no
    # comparison
    drift: Mapped[Json | None]  # how they differ from those of earlier fires (Verdict), and which
    # alias's promotions are held back; null: they were not compared

    __table_args__ = (
        UniqueConstraint("schedule_id", "due"),
        UniqueConstraint("schedule_id", "idempotency_key"),
        ForeignKeyConstraint(
            ["schedule_id", "version"],
            ["schedule_versions.schedule_id", "schedule_versions.version"],
            name="fk_fires_schedule_id_version",
        ),
        CheckConstraint(one_of("state", FireState), name="state"),
        CheckConstraint(one_of("origin", FireOrigin), name="origin"),
        CheckConstraint(
            "(state IN ('buffered', 'submitted')) = (ended_at IS NULL)", name="ended_iff_final"
        ),
        CheckConstraint("(backfill IS NULL) = (at_most IS NULL)", name="backfill_whole"),
        Index(
            "ix_fires_open",
            "schedule_id",
            "state",
            "due",
            postgresql_where=text("state IN ('buffered', 'submitted')"),
        ),
        Index("ix_fires_to_follow", "id", postgresql_where=text("to_follow")),
        Index("ix_fires_ended", "schedule_id", "ended_at"),
    )
