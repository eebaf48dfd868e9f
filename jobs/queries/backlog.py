"""What waits in the ledger, by queue: the truth, of which the messages in Redis are a part."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.lookups import predicates
from jobs.queries.dispatch import has_claimable_chunks
from jobs.states import LIVE_RUN, ChunkState, JobStep, RankState
from jobs.tables import Chunk, Job, Rank, Run

COUNTED = 100_000
"""Chunks of one job are counted so far; the number is a sign of how long it takes, no more."""


@dataclass(frozen=True)
class Backlog:
    """What waits for one queue's workers."""

    jobs: int  # that have something waiting; of a training host: runs
    waiting: int  # chunks, steps or ranks
    sent: int  # of those, with a message on its way
    oldest_sent_at: datetime | None  # of those messages; null: there is none
    oldest_job_at: datetime | None  # when the oldest of the jobs was accepted; null: there is none


NOTHING = Backlog(jobs=0, waiting=0, sent=0, oldest_sent_at=None, oldest_job_at=None)


def of_pools(session: Session) -> dict[str, Backlog]:
    """Pending chunks of jobs whose chunks may be claimed, by pool."""
    pending = sa.and_(Chunk.job_id == Job.id, Chunk.state == ChunkState.PENDING)
    some = (
        sa.select(sa.literal(1).label("one"))
        .where(pending)
        .order_by(Chunk.first_row)  # which keeps to the index of pending chunks
        .limit(COUNTED)
        .correlate(Job)
        .subquery()
        .lateral()
    )
    waiting = sa.select(sa.func.count().label("count")).select_from(some).lateral("waiting")
    sent = (
        sa.select(sa.func.count().label("count"), sa.func.min(Chunk.dispatched_at).label("oldest"))
        .where(pending, Chunk.dispatched_at.is_not(None))
        .correlate(Job)
        .lateral("sent")
    )
    waits = waiting.c.count > 0
    query = (
        sa.select(
            Job.pool,
            sa.func.count().filter(waits),
            sa.cast(sa.func.coalesce(sa.func.sum(waiting.c.count), 0), sa.BigInteger),
            sa.cast(sa.func.coalesce(sa.func.sum(sent.c.count), 0), sa.BigInteger),
            sa.func.min(sent.c.oldest),
            sa.func.min(Job.created_at).filter(waits),
        )
        .select_from(Job)
        .join(waiting, sa.true())
        .join(sent, sa.true())
        .where(has_claimable_chunks())
        .group_by(Job.pool)
    )
    return _by_name(session, query)


def of_planners(session: Session) -> Backlog:
    """Jobs that wait to be planned or finalized."""
    sent = Job.step_dispatched_at.is_not(None)
    query = sa.select(
        sa.func.count(),
        sa.func.count(),
        sa.func.count().filter(sent),
        sa.func.min(Job.step_dispatched_at),
        sa.func.min(Job.created_at),
    ).where(
        sa.or_(
            *(
                sa.and_(predicates.step_claimable(step), predicates.step_of_kind(step))
                for step in JobStep
            )
        )
    )
    return Backlog(*session.execute(query).one())


def of_hosts(session: Session) -> dict[str, Backlog]:
    """Ranks that their hosts have not claimed, by host."""
    query = (
        sa.select(
            Rank.host,
            sa.func.count(sa.distinct(Rank.run_id)),
            sa.func.count(),
            sa.func.count(Rank.dispatched_at),
            sa.func.min(Rank.dispatched_at),
            sa.func.min(Job.created_at),
        )
        .join(Run, Run.id == Rank.run_id)
        .join(Job, Job.id == Run.job_id)
        .where(Rank.state == RankState.PENDING, Run.state.in_(LIVE_RUN))
        .group_by(Rank.host)
    )
    return _by_name(session, query)


def _by_name(session: Session, query: sa.Select[*tuple[Any, ...]]) -> dict[str, Backlog]:
    return {name: Backlog(*figures) for name, *figures in session.execute(query)}
