"""The tables of training: hosts, runs, ranks, checkpoints, measured series, log lines.

A run is one attempt at a job by one gang. Its fence is its number within the job: what a rank holds
under an older number changes nothing.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    ForeignKey,
    Identity,
    Index,
    Integer,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from jobs.states import RankState, RunState
from jobs.tables.base import Base, Json, one_of

_LIVE = "state IN ('forming', 'running')"


class Host(Base):
    """A machine that takes ranks of training runs, as its agent last beat."""

    __tablename__ = "hosts"

    name: Mapped[str] = mapped_column(primary_key=True)
    incarnation: Mapped[str]  # new at every start of its agent; messages to an old one are void
    pool: Mapped[str]
    address: Mapped[str]  # where the other ranks of a gang reach it
    devices: Mapped[int] = mapped_column(Integer)  # accelerators; processes of a rank
    device: Mapped[str]  # for people: `cpu`, `cuda:0,1`
    memory_bytes: Mapped[int]  # of the machine
    shares_pool: Mapped[str | None]  # the bulk pool that uses the same devices; null: none does
    sharing: Mapped[str | None]  # with that pool: `beside`, `yield` or `refuse`
    worker: Mapped[str | None]  # its agent's name among Celery's; null: of an earlier version
    draining: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))  # takes no more
    run_id: Mapped[str | None] = mapped_column(  # whose gang has reserved it; null: idle
        ForeignKey("runs.id", use_alter=True)
    )
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    beat_at: Mapped[datetime]  # old: it is dead or cut off

    __table_args__ = (
        CheckConstraint("sharing IN ('beside', 'yield', 'refuse')", name="sharing"),
        CheckConstraint("(shares_pool IS NULL) = (sharing IS NULL)", name="sharing_whole"),
        Index(None, "pool"),
    )


class Run(Base):
    """One attempt at a training or evaluation job by one gang."""

    __tablename__ = "runs"

    id: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    number: Mapped[int] = mapped_column(Integer)  # 1, 2, ... within the job: the run's fence
    state: Mapped[RunState]
    machines: Mapped[int] = mapped_column(Integer)
    address: Mapped[str]  # of rank 0's host: the rendezvous
    port: Mapped[int | None] = mapped_column(Integer)  # by rank 0; null: not chosen yet
    checkpoint_id: Mapped[int | None] = mapped_column(  # resumed from; null: from the beginning
        ForeignKey("checkpoints.id", use_alter=True)
    )
    stop: Mapped[str | None]  # `checkpoint` or `now`: how its ranks should end; null: go on
    stop_reason: Mapped[str | None]  # in words; null if and only if `stop` is
    step: Mapped[int] = mapped_column(server_default=text("0"))  # optimizer steps, as last reported
    steps_total: Mapped[int | None]  # null: not known yet; of an evaluation job: it has no steps
    evaluated_rows: Mapped[int | None]  # of its newest evaluation, as last reported; null: there
    # was none
    evaluation_rows: Mapped[int | None]  # of all models of that evaluation together
    evaluation_began_at: Mapped[datetime | None]  # when its first rows were reported
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]  # every rank had claimed; null: still forming
    finished_at: Mapped[datetime | None]  # set if and only if the state is final
    reason: Mapped[str | None]  # why it ended other than well, naming rank and host
    failing_rank: Mapped[int | None] = mapped_column(Integer)

    __table_args__ = (
        CheckConstraint(one_of("state", RunState), name="state"),
        CheckConstraint(f"({_LIVE}) = (finished_at IS NULL)", name="finished_iff_final"),
        CheckConstraint("stop IN ('checkpoint', 'now')", name="stop"),
        CheckConstraint("(stop IS NULL) = (stop_reason IS NULL)", name="stop_whole"),
        CheckConstraint(
            "num_nulls(evaluated_rows, evaluation_rows, evaluation_began_at) IN (0, 3)",
            name="evaluation_whole",
        ),
        UniqueConstraint("job_id", "number"),
        Index(  # of one job at most one run holds hosts
            "uq_runs_live_job", "job_id", unique=True, postgresql_where=text(_LIVE)
        ),
    )


class Rank(Base):
    """One host's part in a run."""

    __tablename__ = "ranks"

    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    rank: Mapped[int] = mapped_column(Integer, primary_key=True)  # of the host, from 0
    host: Mapped[str]
    incarnation: Mapped[str]  # of the host's agent when the gang was formed
    address: Mapped[str]
    state: Mapped[RankState] = mapped_column(server_default=text("'pending'"))
    dispatched_at: Mapped[datetime | None]  # a message is out; null: none yet
    claimed_at: Mapped[datetime | None]
    lease_expires_at: Mapped[datetime | None]  # set if and only if it is leased
    phase: Mapped[str | None]  # what its processes do, in a word; null: not begun
    progress_at: Mapped[datetime | None]  # when they last reported progress
    outcome: Mapped[str | None]  # set if and only if it has ended: see decisions.run_verdict
    exit_code: Mapped[int | None] = mapped_column(Integer)  # of the launcher; null: none was seen
    error_code: Mapped[str | None]  # of a fault of the job's own; null: not one of those
    error: Mapped[str | None]  # in words, with the end of its log
    ended_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint(one_of("state", RankState), name="state"),
        CheckConstraint(
            "(state = 'leased') = (lease_expires_at IS NOT NULL)", name="leased_iff_lease"
        ),
        CheckConstraint(
            "(state = 'ended') = (outcome IS NOT NULL AND ended_at IS NOT NULL)",
            name="ended_iff_outcome",
        ),
        Index("ix_ranks_live", "host", postgresql_where=text("state <> 'ended'")),
    )


class CheckpointPart(Base):
    """What one host has uploaded of a checkpoint; it counts once all have and the row is there."""

    __tablename__ = "checkpoint_parts"

    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    rank: Mapped[int] = mapped_column(Integer, primary_key=True)
    files: Mapped[list[Json]] = mapped_column(JSONB)  # path, key, bytes, sha256 of each
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Checkpoint(Base):
    """A complete checkpoint: its manifest, which names every file with its hash, is stored."""

    __tablename__ = "checkpoints"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"))
    step: Mapped[int]
    metric: Mapped[float | None]  # the best-so-far rule's number; null: not evaluated at this step
    best: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))  # so far
    manifest_key: Mapped[str]
    manifest_sha256: Mapped[str]
    bytes: Mapped[int]  # of all its files
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    damaged_at: Mapped[datetime | None]  # a rank found it unusable; null: none did
    deleted_at: Mapped[datetime | None]  # its objects are gone, or going; null: it is kept

    __table_args__ = (
        UniqueConstraint("run_id", "step"),
        Index("ix_checkpoints_job", "job_id", "step"),
    )


class Point(Base):
    """One number of a job's curve. A run that resumed writes over what it does again."""

    __tablename__ = "points"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)  # loss, learning_rate, validation/f1 ...
    step: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[float]
    run_number: Mapped[int] = mapped_column(Integer)
    at: Mapped[datetime] = mapped_column(server_default=func.now())


class LogLine(Base):
    """A line that a rank's processes wrote."""

    __tablename__ = "log_lines"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    run_number: Mapped[int] = mapped_column(Integer)
    rank: Mapped[int] = mapped_column(Integer)
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    text: Mapped[str]

    __table_args__ = (Index(None, "job_id", "id"),)
