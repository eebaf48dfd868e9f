"""The lease on leading: one control process leads at a time, under a fence.

The leader works in one session of Postgres and holds an advisory lock in it, whose number is its
fence. If the session is gone, so is the lock, and the next process claims at once. If the session
lives but its process does not renew the lease, the next process ends the session: with it goes
whatever the late leader had begun, and it can write nothing more. See decision 0038.
"""

from __future__ import annotations

from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from jobs.ledger.events import CONTROL_CHANNEL
from jobs.tables import ControlStatus

LOCK = 0x6C656164  # "lead": the class of the advisory locks; the second number is the fence
ENDING_MILLISECONDS = 5_000

_LEADER = sa.text(
    """
    SELECT status.fence, lock.pid,
           status.lease_expires_at < clock_timestamp()
           AND (activity.state IS DISTINCT FROM 'active' OR activity.wait_event_type = 'Client')
           AND coalesce(activity.state_change < clock_timestamp() - :patience, true) AS is_late
    FROM control_status AS status
    LEFT JOIN pg_locks AS lock
        ON lock.locktype = 'advisory' AND lock.granted
        AND lock.classid = :lock AND lock.objid = status.fence::int AND lock.objsubid = 2
        AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    LEFT JOIN pg_stat_activity AS activity ON activity.pid = lock.pid
    WHERE status.id = 1
    """
)
"""The leader's fence and session. A leader that waits for a statement is slow, and not late."""


def end_late(session: Session, *, duration: timedelta) -> bool:
    """End the session of a leader that has not renewed its lease; ``True``: it is gone."""
    found = session.execute(_LEADER, _facts(duration)).one_or_none()
    if found is None or found.pid is None or not found.is_late:
        return False
    end = sa.func.pg_terminate_backend(found.pid, ENDING_MILLISECONDS)
    return bool(session.scalar(sa.select(end)))


def claim(session: Session, *, leader: str, duration: timedelta) -> int | None:
    """The fence under which this session leads from now on; ``None``: another one does."""
    found = session.execute(_LEADER, _facts(duration)).one_or_none()
    if found is not None and found.pid is not None:
        return None
    values = {"leader": leader, "lease_expires_at": sa.func.now() + duration}
    fence: int | None = session.scalar(
        insert(ControlStatus)
        .values(id=1, fence=1, turned_at=sa.func.now(), **values)
        .on_conflict_do_update(
            index_elements=[ControlStatus.id],
            set_={**values, "fence": ControlStatus.fence + 1},
            where=ControlStatus.fence == (found.fence if found is not None else 0),
        )
        .returning(ControlStatus.fence)
    )
    if fence is None:
        return None
    lock = sa.func.pg_advisory_lock(sa.cast(LOCK, sa.Integer), sa.cast(fence, sa.Integer))
    session.execute(sa.select(lock))  # before the commit: fence and lock appear together
    session.execute(sa.text(f"LISTEN {CONTROL_CHANNEL}"))  # who waits would only hoard it
    return fence


def renew(session: Session, *, fence: int, duration: timedelta) -> bool:
    """Renew the lease; ``False``: another one leads. One that expired untaken is still ours."""
    return _update(session, fence, lease_expires_at=sa.func.now() + duration)


def record_turn(
    session: Session, *, fence: int, duration: timedelta, broker_error: str | None
) -> bool:
    """Record a turn, and whether the broker answered in it, and renew the lease as ``renew``."""
    since = sa.func.coalesce(ControlStatus.broker_error_since, sa.func.now())
    return _update(
        session,
        fence,
        lease_expires_at=sa.func.now() + duration,
        turned_at=sa.func.now(),
        broker_error=broker_error,
        broker_error_since=None if broker_error is None else since,
    )


def _update(session: Session, fence: int, **values: object) -> bool:
    updated = session.scalar(
        sa.update(ControlStatus)
        .where(ControlStatus.id == 1, ControlStatus.fence == fence)
        .values(**values)
        .returning(ControlStatus.id)
    )
    return updated is not None


def _facts(duration: timedelta) -> dict[str, object]:
    return {"lock": LOCK, "patience": duration / 2}
