"""The lock of a backup, and what is written into a database that was brought back from one.

Those who held a lease in it worked for an installation that is gone, or must be. No row and no job
is to blame: no crash is counted, and no run is charged to a budget.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs import database
from jobs.decisions.run_verdict import RankOutcome
from jobs.errors import BadRequest, Conflict
from jobs.ledger import events, ranks
from jobs.lookups import predicates
from jobs.lookups.backups import LOCK
from jobs.states import FINAL, LIVE_RUN, ChunkState, RankState
from jobs.tables import (
    Chunk,
    CollectionRound,
    Host,
    Job,
    Rank,
    Run,
    UnfinishedUpload,
    WebhookDelivery,
    Worker,
)

LEAP = 1_000
"""Fences grow by this, so that a process of before, if one lives on, has none that counts."""

REASON = "the installation was restored from a backup"
_IS_UNFINISHED = sa.text("SELECT to_regclass('unfinished_restore') IS NOT NULL")


class BackupUnderWay(Conflict):
    """Another backup of this database holds the lock, or this one has lost it."""

    code = "backup_under_way"


@dataclass(frozen=True)
class Hold:
    """The lock of a backup, in a session of its own: it ends with the process."""

    connection: sa.Connection

    def check(self) -> None:
        """Raises ``BackupUnderWay`` if the session has ended, and the lock with it."""
        try:
            self.connection.execute(sa.select(1))
        except database.MAY_PASS as lost:
            raise BackupUnderWay(
                "the connection to Postgres was lost during the backup: take it again"
            ) from lost


@dataclass(frozen=True)
class Released:
    """What was under way."""

    chunks: int
    steps: int
    runs: int


@contextmanager
def held(url: str) -> Iterator[Hold]:
    """Hold the lock, as soon as those who are about to remove objects have looked."""
    engine = database.connect(url, pool_size=1, name="nightshift-backup")
    try:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            try:
                connection.execute(sa.select(sa.func.pg_advisory_lock(LOCK)))
            except sa.exc.OperationalError as error:
                if database.is_away(error):
                    raise
                raise BackupUnderWay(
                    "another backup of this database is under way: wait for its end"
                ) from error
            yield Hold(connection)
    finally:
        engine.dispose()


def revision(session: Session) -> str | None:
    """The version of the schema; ``None``: there is none yet."""
    if session.scalar(sa.text("SELECT to_regclass('alembic_version')")) is None:
        return None
    found: str | None = session.scalar(sa.text("SELECT version_num FROM alembic_version"))
    return found


def begin(session: Session, source: str) -> bool:
    """Note that a restore has begun; ``False``: it brought the rows back before it broke off.

    Raises ``BadRequest`` unless the database is empty, or a restore of the same backup broke off.
    """
    if not session.scalar(_IS_UNFINISHED):
        if revision(session) is not None:
            raise BadRequest(
                "the database must be empty, and it has the tables of an installation: name a new "
                "one, or drop and create this one",
                code="database_used",
            )
        session.execute(sa.text("CREATE TABLE unfinished_restore (source text NOT NULL)"))
        session.execute(sa.text("INSERT INTO unfinished_restore VALUES (:of)"), {"of": source})
        return True
    found = session.scalar(sa.text("SELECT source FROM unfinished_restore"))
    if found != source:
        raise BadRequest(
            f"a restore of {found} into this database broke off: end that one first, or drop and "
            "create the database",
            code="restore_unfinished",
        )
    return revision(session) is None


def finish(session: Session) -> Released:
    """Give back every lease and forget every message: control sends and forms them again.

    Workers and hosts of before are silent from now on, so that no run is formed on one of them.
    """
    session.execute(sa.text("DROP TABLE IF EXISTS unfinished_restore"))
    released = Released(chunks=_chunks(session), steps=_steps(session), runs=_runs(session))
    session.execute(
        sa.update(UnfinishedUpload).values(
            fence=UnfinishedUpload.fence + LEAP, lease_expires_at=sa.func.now()
        )
    )
    session.execute(
        sa.update(WebhookDelivery)
        .where(WebhookDelivery.leased_until.is_not(None))
        .values(fence=WebhookDelivery.fence + LEAP, leased_until=None, next_at=sa.func.now())
    )
    session.execute(
        sa.update(CollectionRound).values(fence=CollectionRound.fence + 1, leased_until=None)
    )
    for beats in (Worker, Host):
        session.execute(sa.update(beats).values(beat_at=sa.func.now() - 2 * predicates.SILENCE))
    events.wake_control(session)
    return released


def _chunks(session: Session) -> int:
    leased = _count(session, Chunk.id, Chunk.state == ChunkState.LEASED)
    session.execute(
        sa.update(Chunk)
        .where(Chunk.state.in_((ChunkState.LEASED, ChunkState.PENDING)))
        .values(
            state=ChunkState.PENDING,
            fence=Chunk.fence + LEAP,
            owner=None,
            lease_expires_at=None,
            dispatched_at=None,
        )
    )
    return leased


def _steps(session: Session) -> int:
    leased = _count(session, Job.id, Job.step_owner.is_not(None))
    session.execute(
        sa.update(Job)
        .where(sa.or_(Job.state.not_in(FINAL), Job.step_owner.is_not(None)))
        .values(
            step_fence=Job.step_fence + LEAP,
            step_owner=None,
            step_lease_expires_at=None,
            step_dispatched_at=None,
        )
    )
    return leased


def _runs(session: Session) -> int:
    """As if the hosts had been asked to stop: the next run goes on from the last checkpoint."""
    stopped = session.scalars(
        sa.update(Run)
        .where(Run.state.in_(LIVE_RUN))
        .values(
            stop=sa.func.coalesce(Run.stop, "now"),
            stop_reason=sa.func.coalesce(Run.stop_reason, REASON),
        )
        .returning(Run.id)
    ).all()
    session.execute(
        sa.update(Rank)
        .where(Rank.state != RankState.ENDED)
        .values(**ranks.ending(RankOutcome.ABORTED), error=REASON)
    )
    return len(stopped)


def _count(session: Session, column: Any, condition: sa.ColumnElement[bool]) -> int:
    return session.scalar(sa.select(sa.func.count(column)).where(condition)) or 0
