"""Conditions on rows that the ledger and the queries share, so that neither imports the other.

Each function returns an SQL expression; nothing is read here.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import aliased

from jobs import states
from jobs.decisions.dependencies import DependencyOn
from jobs.kinds import BULK
from jobs.states import FINAL, LIVE_RUN, STEP_STATES, ChunkState, JobState, JobStep
from jobs.tables import Checkpoint, Chunk, Job, JobDependency, Run

SILENCE = timedelta(seconds=20)
"""A worker or host whose last heartbeat is older than this counts as gone."""

OVERDUE = timedelta(seconds=12)
"""A worker or host that is silent for longer has missed two heartbeats: reasons for waiting do not
count on it, and say when it was last heard."""

QUARANTINE_DEATHS = 2
"""Workers that died of one message, after which no other one acts on it."""


def chunk_done() -> sa.ColumnElement[bool]:
    """Chunks whose part is committed."""
    return Chunk.state == ChunkState.DONE


def chunk_has_failed_rows() -> sa.ColumnElement[bool]:
    """Chunks with failed rows, as their partial index states it."""
    return Chunk.rows_failed > 0


def chunk_due() -> sa.ColumnElement[bool]:
    """Chunks that do not wait after a failure."""
    return sa.or_(Chunk.not_before.is_(None), Chunk.not_before <= sa.func.now())


def chunk_dispatchable(
    resend_before: datetime | sa.ColumnElement[datetime] | None,
) -> sa.ColumnElement[bool]:
    """Pending chunks that may be sent: never sent, or sent so long ago that it counts as lost."""
    unsent: sa.ColumnElement[bool] = Chunk.dispatched_at.is_(None)
    if resend_before is not None:
        unsent = sa.or_(unsent, Chunk.dispatched_at < resend_before)
    return sa.and_(Chunk.state == ChunkState.PENDING, unsent, chunk_due())


def chunk_lease_expired() -> sa.ColumnElement[bool]:
    """Chunks whose lease has run out."""
    return sa.and_(Chunk.state == ChunkState.LEASED, Chunk.lease_expires_at < sa.func.now())


def job_expired() -> sa.ColumnElement[bool]:
    """Jobs whose deadline has passed."""
    may_expire = Job.state.in_(states.sources(JobState.EXPIRED))
    return sa.and_(Job.expires_at < sa.func.now(), may_expire)


def job_ended() -> sa.ColumnElement[bool]:
    """Jobs that have ended and are there, as the partial index of retention states it."""
    return sa.and_(Job.finished_at.is_not(None), Job.deleted_at.is_(None))


def job_busy() -> sa.ColumnElement[bool]:
    """Jobs of which a process holds a chunk, a run or a step, even if that lease has run out.

    Of any other job no object that is in the store can be committed any more: every commit is
    guarded by a lease, and a new lease has a new fence, which is in the keys of what it writes.
    """
    leased = sa.exists().where(Chunk.job_id == Job.id, Chunk.state == ChunkState.LEASED)
    live = sa.exists().where(Run.job_id == Job.id, Run.state.in_(LIVE_RUN))
    return sa.or_(leased, live, Job.step_owner.is_not(None))


def job_waits() -> sa.ColumnElement[bool]:
    """Jobs that wait for jobs which they need, as their partial index states it."""
    return sa.and_(Job.held, Job.state == JobState.QUEUED)


def job_skipped() -> sa.ColumnElement[bool]:
    """Jobs that were cancelled because there was nothing for them to do.

    A process of an earlier version that retries one leaves the reason where it is.
    """
    return sa.and_(Job.state == JobState.CANCELLED, Job.skipped.is_not(None))


def job_settles() -> sa.ColumnElement[bool]:
    """Of those, jobs that can go, can never go, or whose model is known by now."""
    needed = aliased(Job)
    needs = (
        sa.select(JobDependency.job_id)
        .join(needed, needed.id == JobDependency.needs_job_id)
        .where(JobDependency.job_id == Job.id)
        .correlate(Job)
    )
    on_success = JobDependency.on == DependencyOn.SUCCESS
    broken = sa.and_(on_success, needed.state.in_(FINAL - {JobState.SUCCEEDED}))
    known = sa.and_(
        Job.model_pinned.is_(None),
        JobDependency.gives_model,
        needed.state == JobState.SUCCEEDED,
    )
    return sa.and_(
        job_waits(),
        sa.or_(
            ~needs.where(needed.state.not_in(FINAL)).exists(),
            needs.where(sa.or_(broken, known)).exists(),
        ),
    )


def step_due() -> sa.ColumnElement[bool]:
    """Jobs whose step does not wait after a failure."""
    return sa.or_(Job.step_not_before.is_(None), Job.step_not_before <= sa.func.now())


def step_of_kind(step: JobStep) -> sa.ColumnElement[bool]:
    """Jobs of a kind that has this step: a training job has no parts to put together."""
    return Job.kind.in_(BULK) if step is JobStep.FINALIZE else sa.true()


def step_lets_go(step: JobStep) -> sa.ColumnElement[bool]:
    """Jobs that do not wait for others: one that is cancelled while it does ends all the same."""
    return ~Job.held if step is JobStep.PLAN else sa.true()


def step_claimable(step: JobStep) -> sa.ColumnElement[bool]:
    """Jobs whose next step this is, which is not leased and does not wait after a failure."""
    free = sa.or_(Job.step_lease_expires_at.is_(None), Job.step_lease_expires_at < sa.func.now())
    return sa.and_(Job.state.in_(STEP_STATES[step]), step_lets_go(step), free, step_due())


def checkpoint_usable() -> sa.ColumnElement[bool]:
    """Checkpoints that are neither damaged nor deleted."""
    return sa.and_(Checkpoint.damaged_at.is_(None), Checkpoint.deleted_at.is_(None))
