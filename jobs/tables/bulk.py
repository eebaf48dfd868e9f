"""The tables of jobs and bulk work, each field explained: meaning, writer, what null means.

Counts of a running job are sums over its chunks: no row is written by every worker, so commits of
different chunks never wait for each other. Times are the database's clock.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    ARRAY,
    REAL,
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

from jobs.states import ChunkState, JobState
from jobs.tables.base import FINAL_STATES, Base, Json, listing_and_purge, one_of


class Job(Base):
    """One thing that a user asked for."""

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    kind: Mapped[str]
    state: Mapped[JobState]
    spec: Mapped[Json]  # as accepted; never changed
    pool: Mapped[str]  # of the spec, for the dispatcher's index
    priority: Mapped[int] = mapped_column(Integer)  # of the spec; higher goes first
    idempotency_key: Mapped[str | None]  # the client's; null: none given
    request_sha256: Mapped[str]  # of the spec: distinguishes a repeated submit from a reused key
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]  # null: no deadline
    started_at: Mapped[datetime | None]  # a planner first claimed it; null: none has yet
    planned_at: Mapped[datetime | None]  # every row is in a chunk; null: planning goes on
    finished_at: Mapped[datetime | None]  # set if and only if the state is final

    # The lease on the job's own steps, planning and finalizing; written by who claims them.
    step_fence: Mapped[int] = mapped_column(server_default=text("0"))  # only grows
    step_owner: Mapped[str | None]  # null: it is not leased
    step_lease_expires_at: Mapped[datetime | None]  # null: it is not leased
    step_dispatched_at: Mapped[datetime | None]  # a message was sent; null: none since the claim
    step_crashes: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    step_error: Mapped[str | None]  # why it was released after its last try; null: it was not
    step_failures: Mapped[int] = mapped_column(  # tries that what is transient ended, since the
        Integer,
        server_default=text("0"),  # step began or came further
    )
    step_failing_since: Mapped[datetime | None]  # the first of those; null: there is none
    step_not_before: Mapped[datetime | None]  # after a failure: not claimed earlier; null: at once

    inputs_at: Mapped[datetime | None]  # the planner listed the objects of its corpora, which are
    # in ``job_inputs``; null: it has not yet, or was of a version before that table
    corpus_fingerprint: Mapped[str | None]  # by the planner, to notice a corpus that changed
    model_digest: Mapped[str | None]  # by the planner: workers refuse other weights
    rows_planned: Mapped[int] = mapped_column(server_default=text("0"))  # rows in shards so far
    chunks_planned: Mapped[int | None] = mapped_column(  # chunks that the planner cut so far; null:
        Integer,
        server_default=text("0"),  # the job is older than this column
    )
    rows_total: Mapped[int | None]  # null: not planned to the end yet
    error_code: Mapped[str | None]  # of a failed job
    error_message: Mapped[str | None]
    output: Mapped[Json | None]  # by the finalizer: manifest key, file key, rows; null: none yet
    model_pinned: Mapped[str | None]  # name@version that the spec's registry reference meant when
    # the job was accepted; null: the reference is no name of the registry

    embedding_width: Mapped[int | None]  # by the planner, of an embed job; null: of other kinds
    reading: Mapped[Json | None]  # by the planner: how the model was trained to read rows, and what
    # the job has otherwise (jobs.models.signatures.Reading); null: the model has no signature

    fire_id: Mapped[int | None] = mapped_column(ForeignKey("fires.id"))  # of the schedule that
    # submitted it; null: a user did

    # Of training and evaluation.
    dataset: Mapped[Json | None]  # by the planner: rows, labels, rejected rows by split
    faults: Mapped[int] = mapped_column(  # runs lost to infrastructure since the last retry
        Integer, server_default=text("0")
    )
    errors: Mapped[int] = mapped_column(  # runs ended by an error of the job's own since then
        Integer, server_default=text("0")
    )
    not_before: Mapped[datetime | None]  # after a lost run: no new gang earlier; null: at once
    run_error: Mapped[str | None]  # why the last run ended early, in words; null: none did

    group_id: Mapped[str | None] = mapped_column(ForeignKey("job_groups.id"))  # null: it is alone
    member: Mapped[str | None]  # its name in the group; null: it is alone
    held: Mapped[bool] = mapped_column(  # it waits for jobs that it needs; control lets it go, or
        Boolean,
        server_default=text("false"),  # ends it because one of them did not succeed
    )

    skipped: Mapped[
        str | None
    ]  # of a cancelled one that had nothing to do: why, in words; null: it
    # had, or was cancelled by a user

    kept: Mapped[bool] = mapped_column(  # nothing of it is removed or deleted
        Boolean, server_default=text("false")
    )
    retention: Mapped[Json | None]  # periods of its own (jobs.retention.JobPeriods); null: none
    retention_at: Mapped[datetime] = mapped_column(  # once it has ended: when retention looks at it
        server_default=text("'1970-01-01 00:00:00+00'")  # next
    )

    deleted_at: Mapped[datetime | None]  # the row stays as a tombstone; null: its owner sees it
    purge_at: Mapped[datetime | None]  # when what is left of it is removed, or that is tried again;
    # null: there is nothing to remove

    __table_args__ = (
        CheckConstraint(one_of("state", JobState), name="state"),
        CheckConstraint(
            f"(state IN ({FINAL_STATES})) = (finished_at IS NOT NULL)", name="finished_iff_final"
        ),
        CheckConstraint("(state = 'failed') = (error_code IS NOT NULL)", name="error_iff_failed"),
        CheckConstraint(
            "(step_owner IS NULL) = (step_lease_expires_at IS NULL)", name="step_lease_whole"
        ),
        CheckConstraint("(rows_total IS NULL) = (planned_at IS NULL)", name="total_iff_planned"),
        CheckConstraint("deleted_at IS NULL OR finished_at IS NOT NULL", name="deleted_after_end"),
        CheckConstraint("purge_at IS NULL OR deleted_at IS NOT NULL", name="purge_of_deleted"),
        CheckConstraint(  # not even a process of a version before dependencies begins it
            "NOT held OR state NOT IN ('planning', 'running', 'finalizing', 'succeeded')",
            name="held_before_it_begins",
        ),
        UniqueConstraint("project_id", "idempotency_key"),
        UniqueConstraint("project_id", "id"),  # what a dependency refers to
        *listing_and_purge(),
        Index(  # of the listing of all projects
            "ix_jobs_created_at_id",
            "created_at",
            "id",
            postgresql_where=text("deleted_at IS NULL"),
        ),
        Index(None, "fire_id", postgresql_where=text("fire_id IS NOT NULL")),
        Index(None, "group_id", postgresql_where=text("group_id IS NOT NULL")),
        Index(
            None,
            "retention_at",
            postgresql_where=text("finished_at IS NOT NULL AND deleted_at IS NULL"),
        ),
        Index(None, "finished_at", postgresql_where=text("finished_at IS NOT NULL")),
        Index("ix_jobs_kept", "project_id", postgresql_where=text("kept")),
        Index("ix_jobs_held", "id", postgresql_where=text("held AND state = 'queued'")),
        Index(
            "ix_jobs_active",
            "pool",
            "state",
            postgresql_where=text(f"state NOT IN ({FINAL_STATES})"),
        ),
    )


class Shard(Base):
    """A piece of a corpus as the planner wrote it down."""

    __tablename__ = "shards"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    index: Mapped[int] = mapped_column(Integer, primary_key=True)
    split: Mapped[str] = mapped_column(server_default=text("'rows'"))  # train, validation, test,
    # promotion: which corpus of a training job; `rows` for bulk work
    object_key: Mapped[str]
    sha256: Mapped[str | None]  # of the object, for training; null: bulk work does not need it
    first_row: Mapped[int]  # place in the corpus of its first row
    rows: Mapped[int]


class Chunk(Base):
    """A row range of one shard: the unit of bulk work."""

    __tablename__ = "chunks"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    shard_index: Mapped[int] = mapped_column(Integer)
    number: Mapped[int | None] = mapped_column(Integer)  # 1, 2, ... in the order of planning; the
    # halves of a chunk that was split keep it; null: planned by a version before this column
    first_row: Mapped[int]  # place in the corpus of its first row
    rows: Mapped[int]
    state: Mapped[ChunkState] = mapped_column(server_default=text("'pending'"))

    fence: Mapped[int] = mapped_column(server_default=text("0"))  # grows by one at every claim
    owner: Mapped[str | None]  # worker and process that hold it; null: it is not leased
    lease_expires_at: Mapped[datetime | None]  # null: it is not leased
    dispatched_at: Mapped[datetime | None]  # a message is out; null: none since it became pending
    not_before: Mapped[datetime | None]  # after a failure: not claimed earlier; null: at once
    claimed_at: Mapped[datetime | None]  # the last claim; null: there was none, or by a version
    # before this column
    begun_at: Mapped[datetime | None]  # its worker began to compute its rows, with the model
    # loaded; null: none has since the last claim, or a version before this column
    fraction_done: Mapped[float | None] = mapped_column("share", REAL)  # of its work, at
    # ``reported_at``, 0 to 1; null: nothing was reported since the claim, or it is done
    reported_at: Mapped[datetime | None] = mapped_column("share_at")  # null if and only if
    # ``fraction_done`` is
    crashes: Mapped[int] = mapped_column(  # workers that died while they computed its rows
        Integer, server_default=text("0")
    )
    load_crashes: Mapped[int] = mapped_column(  # workers that died before its first row
        Integer, server_default=text("0")
    )
    failures: Mapped[int] = mapped_column(Integer, server_default=text("0"))  # released by a fault
    failing_since: Mapped[datetime | None]  # the first of those; null: there is none
    engine_faults: Mapped[int] = mapped_column(  # of those, exceptions of the engine
        Integer, server_default=text("0")
    )
    last_error: Mapped[str | None]  # of the last crash or failure, in words
    condemned: Mapped[bool] = mapped_column(  # a single row that kills: to be written as an error
        Boolean, server_default=text("false")
    )
    retried_part: Mapped[str | None]  # the part whose error rows a retry computes again

    # Written by the commit, under the fence.
    part_key: Mapped[str | None]  # null: not done yet
    part_bytes: Mapped[int | None]
    part_sha256: Mapped[str | None]  # of the object, after a reopening of
    # ``retried_part``; null: none, or by a version before hashes
    damage: Mapped[str | None]  # why the part cannot be read, by who last tried; null: not known to
    # be damaged. A retry computes the chunk again
    rows_failed: Mapped[int | None]
    tokens: Mapped[int | None]
    seconds: Mapped[float | None]  # the engine's time
    histogram: Mapped[Json | None]  # label -> rows
    rows_checked: Mapped[int | None]  # of an int8 job: whose text was computed in float32 as well
    # by this commit: a retry counts the rows that it computed, and no others
    rows_agreeing: Mapped[int | None]  # of those, with the same labels both times
    errors: Mapped[Json | None]  # of the part's error rows: code -> rows, and of the first of them
    # row, line, id, message; null: not done, or by a worker that did not count them
    # Of rows that the model answered, added up over all commits of the chunk; null: not counted.
    rows_answered: Mapped[int | None]
    rows_truncated: Mapped[int | None]  # of those, longer than what the model read of them
    rows_near_tie: Mapped[int | None]  # of those, whose labels rounding could have changed
    tokens_read: Mapped[int | None]
    tokens_unknown: Mapped[int | None]  # of those, unknown to the tokenizer
    profile: Mapped[Json | None]  # of the part: how its ``scores`` and ``lengths`` are spread, each
    # as ``bins`` and ``total``; null: not done, or by a version before
    done_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint(one_of("state", ChunkState), name="state"),
        CheckConstraint("rows > 0", name="rows_positive"),
        CheckConstraint(
            "(state = 'leased') = (lease_expires_at IS NOT NULL AND owner IS NOT NULL)",
            name="leased_iff_lease",
        ),
        CheckConstraint("(share IS NULL) = (share_at IS NULL)", name="share_whole"),
        CheckConstraint(
            "(state = 'done') = (part_key IS NOT NULL AND rows_failed IS NOT NULL)",
            name="done_iff_part",
        ),
        Index(  # two live chunks never begin at the same row
            "uq_chunks_job_id_first_row",
            "job_id",
            "first_row",
            unique=True,
            postgresql_where=text("state <> 'split'"),
        ),
        Index(
            "ix_chunks_pending",
            "job_id",
            "first_row",
            postgresql_where=text("state = 'pending'"),
        ),
        Index(  # as many entries as messages are out
            "ix_chunks_sent",
            "job_id",
            postgresql_where=text("state = 'pending' AND dispatched_at IS NOT NULL"),
        ),
        Index(
            "ix_chunks_leased",
            "lease_expires_at",
            postgresql_where=text("state = 'leased'"),
        ),
        Index("ix_chunks_leased_job", "job_id", postgresql_where=text("state = 'leased'")),
        Index("ix_chunks_split", "job_id", postgresql_where=text("state = 'split'")),
        Index(  # control adds up each second what failed
            "ix_chunks_failed",
            "job_id",
            postgresql_include=["rows_failed"],
            postgresql_where=text("rows_failed > 0"),
        ),
    )


class Worker(Base):
    """A worker process group that beats."""

    __tablename__ = "workers"

    name: Mapped[str] = mapped_column(primary_key=True)
    pool: Mapped[str]  # `plan` for planners
    slots: Mapped[int] = mapped_column(Integer)  # chunks it works on at a time
    device: Mapped[str]
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    beat_at: Mapped[datetime]  # old: it is dead or cut off
    engines: Mapped[Json] = mapped_column(server_default="{}")  # by slot, what is loaded there


class Event(Base):
    """Something that happened to a job, in order; few per job, never one per row."""

    __tablename__ = "events"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    type: Mapped[str]
    data: Mapped[Json]

    __table_args__ = (Index(None, "job_id", "id"),)


class ResultRow(Base):
    """One result, for jobs with ``output.postgres``; arrives in the commit of its chunk."""

    __tablename__ = "result_rows"

    job_id: Mapped[str] = mapped_column(primary_key=True)
    row: Mapped[int] = mapped_column(primary_key=True)
    id: Mapped[str | None]
    label: Mapped[str | None]
    score: Mapped[float | None]
    labels: Mapped[Json | None]  # label -> score
    tokens: Mapped[int | None]
    truncated: Mapped[bool | None]
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    embedding: Mapped[list[float] | None] = mapped_column(ARRAY(REAL))
    output: Mapped[str | None]  # a text that the model wrote
    output_tokens: Mapped[int | None]
    finish_reason: Mapped[str | None]  # stop or length
    explanation: Mapped[list[Json] | None] = mapped_column(JSONB)  # of a label: tokens


class ControlStatus(Base):
    """Which control process leads, until when, and what it last did; one row."""

    __tablename__ = "control_status"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)  # always 1
    leader: Mapped[str]
    fence: Mapped[int] = mapped_column(server_default=text("0"))  # grows with each new leader
    lease_expires_at: Mapped[datetime | None]  # null: it was written before there were leases
    turned_at: Mapped[datetime]  # the end of the last turn; at the beginning, the first claim
    broker_error: Mapped[str | None]  # null: the last turn saw nothing wrong with it
    broker_error_since: Mapped[datetime | None]

    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)
