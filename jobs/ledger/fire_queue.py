"""Rows of fires under the lock on their schedule: inserted, buffered, dropped, next to start."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain, takewhile
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from jobs.ledger import schedule_rows, webhook_outbox
from jobs.schedules import policy, states
from jobs.schedules.calendar import FireTime, fire_times
from jobs.schedules.policy import Decision, Missed, Overlap
from jobs.schedules.states import FireOrigin, FireState
from jobs.schedules.timing import Timing
from jobs.tables import Fire, Job, Schedule


@dataclass(frozen=True)
class Open:
    """Fires of a schedule that have not ended, those of backfills aside."""

    running: tuple[str, ...] = ()  # the job of each, or the group of its jobs
    buffered: tuple[datetime, ...] = ()  # oldest first


def unfinished(session: Session, schedule: Schedule) -> Open:
    """The fires that a new one would overlap."""
    work = sa.func.min(sa.func.coalesce(Job.group_id, Job.id))
    rows = session.execute(
        sa.select(Fire.state, Fire.due, work.label("work"))
        .outerjoin(Job, Job.fire_id == Fire.id)
        .where(
            Fire.schedule_id == schedule.id,
            Fire.state.in_(states.OPEN),
            Fire.origin != FireOrigin.BACKFILL,
        )
        .group_by(Fire.id, Fire.state, Fire.due)
        .order_by(Fire.due)
    ).all()
    return Open(
        running=tuple(row.work for row in rows if row.state is FireState.SUBMITTED),
        buffered=tuple(row.due for row in rows if row.state is FireState.BUFFERED),
    )


def decide(session: Session, schedule: Schedule, overlap: Overlap, due: datetime) -> Decision:
    """What a fire does while others have not ended."""
    if overlap is Overlap.ALLOW:
        return Decision(policy.Action.START)
    there = unfinished(session, schedule)
    return policy.overlap(overlap, running=there.running, buffered=there.buffered, new=due)


def add(
    session: Session,
    schedule: Schedule,
    fire: FireTime,
    *,
    origin: FireOrigin,
    state: FireState,
    now: datetime,
    is_sent: bool = False,
    **values: Any,
) -> int | None:
    """A new fire's id; ``None``: the schedule has one of this time.

    ``is_sent``: an earlier row has told the receivers of events about it.
    """
    fire_id = session.scalar(
        insert(Fire)
        .values(
            schedule_id=schedule.id,
            due=fire.due,
            local=fire.local.isoformat(),
            version=schedule.version,
            origin=origin,
            state=state,
            made_at=now,
            ended_at=None if state in states.OPEN else now,
            **values,
        )
        .on_conflict_do_nothing(index_elements=["schedule_id", "due"])
        .returning(Fire.id)
    )
    if fire_id is not None and not is_sent:
        webhook_outbox.fire_ended(
            session,
            schedule_id=schedule.id,
            fire_id=fire_id,
            state=state,
            due=fire.due,
            until=values.get("until"),
            count=values.get("count", 1),
        )
    return fire_id


def add_missed(
    session: Session,
    schedule: Schedule,
    missed: Missed,
    *,
    timing: Timing,
    now: datetime,
    is_sent: bool = False,
) -> None:
    """One row for fires in a row that no process let go in time.

    It begins with the first one without a fire: a backfill may have been there before.
    """
    there = set(
        session.scalars(
            sa.select(Fire.due).where(
                Fire.schedule_id == schedule.id,
                Fire.due.between(missed.first.due, missed.last.due),
            )
        )
    )
    times = chain([missed.first], fire_times(timing, after=missed.first.due))
    within = enumerate(takewhile(lambda fire: fire.due <= missed.last.due, times))
    found = next(((place, fire) for place, fire in within if fire.due not in there), None)
    if found is None:
        return
    done, first = found
    add(
        session,
        schedule,
        first,
        origin=FireOrigin.CALENDAR,
        state=FireState.MISSED,
        reason=missed.reason,
        until=missed.last.due if first.due < missed.last.due else None,
        count=max(1, missed.count - done),
        now=now,
        is_sent=is_sent,
    )


def repeat(
    session: Session,
    schedule: Schedule,
    found: Sequence[FireTime],
    *,
    now: datetime,
    **values: Any,
) -> tuple[list[FireTime], int]:
    """Of these times those that no fire has; fires that never had a job wait again, and how many.

    ``values``: of the fires that wait again.
    """
    there: dict[datetime, FireState] = {}
    again: list[datetime] = []
    if found:
        rows = session.execute(
            sa.select(
                *(Fire.due, Fire.state, Fire.submitted_at),
                *(Fire.until, Fire.version, Fire.reason, Fire.count.label("missed")),
            ).where(
                Fire.schedule_id == schedule.id,
                Fire.due.between(found[0].due, found[-1].due),
            )
        ).all()
        there = {row.due: row.state for row in rows}
        had_job = {row.due for row in rows if row.submitted_at is not None}
        again = [
            each.due
            for each in found
            if there.get(each.due) in states.REPEATABLE and each.due not in had_job
        ]
        session.execute(
            sa.update(Fire)
            .where(Fire.schedule_id == schedule.id, Fire.due.in_(again))
            .values(
                state=FireState.BUFFERED,
                origin=FireOrigin.BACKFILL,
                version=schedule.version,
                ended_at=None,
                until=None,
                count=1,
                **values,
            )
        )
        for row in rows:
            if row.due in again and row.until is not None and row.until > found[-1].due:
                _keep_rest(session, schedule, row, behind=found[-1].due, now=now)
    return [each for each in found if each.due not in there], len(again)


def _keep_rest(
    session: Session, schedule: Schedule, record: Any, *, behind: datetime, now: datetime
) -> None:
    """What a record of missed fires says of times behind this one, in a record of its own."""
    timing = schedule_rows.definition(session, schedule, version=record.version).timing
    times = fire_times(timing, after=record.due - timedelta.resolution)
    within = enumerate(takewhile(lambda fire: fire.due <= record.until, times))
    found = next(((place, fire) for place, fire in within if fire.due > behind), None)
    if found is None:
        return
    before, first = found
    rest = Missed(
        first=first,
        last=FireTime(due=record.until, local=record.until),
        count=max(1, record.missed - before),
        reason=record.reason,
    )
    add_missed(session, schedule, rest, timing=timing, now=now, is_sent=True)


def apply(
    session: Session, schedule: Schedule, decision: Decision, due: datetime, *, now: datetime
) -> None:
    """What a decision does to other fires: one is dropped, jobs of others will be cancelled."""
    if decision.replaces is not None:
        replaced = session.scalar(
            sa.update(Fire)
            .where(
                Fire.schedule_id == schedule.id,
                Fire.due == decision.replaces,
                Fire.state == FireState.BUFFERED,
            )
            .values(state=FireState.SKIPPED, ended_at=now, reason=decision.replaced_reason)
            .returning(Fire.id)
        )
        if replaced is not None:
            webhook_outbox.fire_ended(
                session,
                schedule_id=schedule.id,
                fire_id=replaced,
                state=FireState.SKIPPED,
                due=decision.replaces,
            )
    if decision.cancels:
        work = sa.or_(Job.id.in_(decision.cancels), Job.group_id.in_(decision.cancels))
        of_jobs = sa.select(Job.fire_id).where(work)
        session.execute(
            sa.update(Fire)
            .where(Fire.id.in_(of_jobs), Fire.state == FireState.SUBMITTED)
            .values(
                cancel_at=now,
                to_follow=True,
                reason=f"cancelled for the fire of {due:%Y-%m-%dT%H:%M:%SZ}",
            )
        )


def explain(session: Session, schedule: Schedule, *, reason: str) -> None:
    """Give every fire that waits this reason."""
    session.execute(
        sa.update(Fire)
        .where(Fire.schedule_id == schedule.id, Fire.state == FireState.BUFFERED)
        .values(reason=reason)
    )


def drop(session: Session, schedule: Schedule, *, reason: str, now: datetime) -> None:
    """Cancel every fire that waits."""
    session.execute(
        sa.update(Fire)
        .where(Fire.schedule_id == schedule.id, Fire.state == FireState.BUFFERED)
        .values(state=FireState.CANCELLED, ended_at=now, reason=reason)
    )


def startable(session: Session, schedule: Schedule, overlap: Overlap) -> list[Fire]:
    """The fires that wait and may start now, oldest first."""
    waiting = session.scalars(
        sa.select(Fire)
        .where(Fire.schedule_id == schedule.id, Fire.state == FireState.BUFFERED)
        .order_by(Fire.due)
    ).all()
    if not waiting:
        return []
    ours = [fire for fire in waiting if fire.backfill is None]
    running = unfinished(session, schedule).running if ours else ()
    count = policy.unbuffered(overlap, running=running, buffered=len(ours))
    return [*ours[:count], *_of_backfills(session, schedule, waiting)]


def _of_backfills(session: Session, schedule: Schedule, waiting: Sequence[Fire]) -> Iterator[Fire]:
    """Of each backfill as many as may run beside those that do."""
    ours = [fire for fire in waiting if fire.backfill is not None]
    if not ours:
        return
    busy = Counter(
        session.scalars(
            sa.select(Fire.backfill).where(
                Fire.schedule_id == schedule.id,
                Fire.state == FireState.SUBMITTED,
                Fire.backfill.is_not(None),
            )
        )
    )
    for fire in ours:
        assert fire.at_most is not None
        if busy[fire.backfill] < fire.at_most:
            busy[fire.backfill] += 1
            yield fire
