"""The snapshot of one job from which ``jobs.decisions.why`` explains it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.decisions import time_spent
from jobs.decisions.obstacles import Cause
from jobs.decisions.time_spent import Span, StateChange, TimePart
from jobs.decisions.waiting_reason import Situation
from jobs.decisions.why import JobSnapshot, Pause, PausedSchedule, QueuePlace
from jobs.kinds import TRAINING
from jobs.lookups import chunk_folds
from jobs.queries import jobs
from jobs.queries.jobs import JobView
from jobs.states import CLAIMABLE, ChunkState, JobState, RunState
from jobs.tables import Chunk, Event, Job, Schedule

CHUNK_TIME = sa.text(
    """
    WITH step (part, span) AS (
        SELECT step.part, tstzrange(step.begin, step.until)
        FROM chunks
        CROSS JOIN LATERAL (
            SELECT CASE state WHEN 'done' THEN done_at
                ELSE least(now(), lease_expires_at) END AS ended
        ) AS chunk
        CROSS JOIN LATERAL (
            SELECT CASE state WHEN 'done' THEN
                least(ended, begun_at + make_interval(secs => coalesce(seconds, 0)))
            ELSE ended END AS computed
        ) AS engine
        CROSS JOIN LATERAL (VALUES
            ('loading', claimed_at, coalesce(begun_at, ended)),
            ('computing', begun_at, computed),
            ('writing', computed, ended)
        ) AS step (part, begin, until)
        WHERE job_id = :job_id AND state IN ('done', 'leased') AND state <> 'split'
            AND step.begin < step.until
    ), work AS (
        SELECT
            coalesce(range_agg(span) FILTER (WHERE part = 'computing'), '{}') AS computing,
            coalesce(range_agg(span) FILTER (WHERE part = 'loading'), '{}') AS loading,
            coalesce(range_agg(span) FILTER (WHERE part = 'writing'), '{}') AS writing
        FROM step
    ), given (part, span) AS (
        SELECT part, tstzrange(begin, until)
        FROM unnest(
            CAST(:parts AS text[]),
            CAST(:begins AS timestamptz[]),
            CAST(:ends AS timestamptz[])
        ) AS state (part, begin, until)
    ), whole AS (
        SELECT tstzmultirange(range_merge(range_agg(span))) AS spans FROM given
    ), apart (part, spans) AS (
        SELECT 'computing', computing * whole.spans FROM work, whole
        UNION ALL SELECT 'loading', (loading - computing) * whole.spans FROM work, whole
        UNION ALL SELECT 'writing', (writing - loading - computing) * whole.spans
            FROM work, whole
        UNION ALL SELECT part, tstzmultirange(span) - computing - loading - writing
            FROM given, work
    )
    SELECT part, CAST(sum(extract(epoch FROM upper(span) - lower(span))) AS double precision)
    FROM apart CROSS JOIN LATERAL unnest(spans) AS span
    GROUP BY part
    """
)
"""``jobs.decisions.time_spent`` over the last commit of each chunk, added up in the database: a
long job has more spans than an answer may hold. A chunk that a retry computed again has the seconds
of both commits, and counts as computing to its end."""

RUN_SPANS = sa.text(
    """
    SELECT runs.state, runs.created_at, coalesce(runs.finished_at, now()),
        coalesce(curve.first_at, runs.evaluation_began_at), curve.last_at
    FROM runs
    LEFT JOIN (
        SELECT run_number, min(at) AS first_at, max(at) AS last_at
        FROM points WHERE job_id = :job_id AND name = 'loss' GROUP BY run_number
    ) AS curve ON curve.run_number = runs.number
    WHERE runs.job_id = :job_id
    """
)
"""Of each run: its state, when it began and ended, and when its first and last steps were."""


def look(session: Session, job_id: str, *, project_id: str) -> JobSnapshot:
    """The job at this moment. Raises ``NotFound``, for another project's job too."""
    view = jobs.get(session, job_id, project_id=project_id)
    training = view.training
    return JobSnapshot(
        job_id=job_id,
        state=view.job.state,
        trains=view.job.kind in TRAINING,
        pool=view.job.pool,
        situation=view.situation,
        error_code=view.job.error_code,
        error_message=view.job.error_message,
        rows_done=view.counts.rows_done,
        rows_total=view.job.rows_total,
        rows_failed=view.counts.rows_failed,
        failed_codes={error.code: error.rows for error in view.row_errors},
        rate=view.rate,
        loading=_loading(session, job_id) if view.counts.leased else 0,
        steps=training.step if training else 0,
        steps_total=training.newest.run.steps_total if training and training.newest else None,
        pause=_pause(session, view.job),
        place=_place(session, view.job, view.situation),
        schedule=_schedule(session, view),
        time=_time(session, view),
    )


def _loading(session: Session, job_id: str) -> int:
    """Chunks at workers that have not begun to compute them, as far as they have reported."""
    query = sa.select(sa.func.count()).where(
        Chunk.job_id == job_id, Chunk.state == ChunkState.LEASED, Chunk.begun_at.is_(None)
    )
    return session.scalar(query) or 0


def _pause(session: Session, job: Job) -> Pause | None:
    if job.state is not JobState.PAUSED:
        return None
    query = (
        sa.select(Event.at, Event.data["by"].as_string())
        .where(
            Event.job_id == job.id,
            Event.type == "state",
            Event.data["state"].as_string() == JobState.PAUSED,
        )
        .order_by(Event.id.desc())
        .limit(1)
    )
    found = session.execute(query).one_or_none()
    return Pause(*found) if found else None


def _place(session: Session, job: Job, situation: Situation | None) -> QueuePlace | None:
    causes = {obstacle.cause for obstacle in situation.obstacles} if situation else set()
    if causes.isdisjoint({Cause.BUSY, Cause.IN_QUEUE}):
        return None
    number, of = session.execute(place_row(job)).one()
    return QueuePlace(number, of)


def place_row(job: Job) -> sa.Select[int, int]:
    """How many jobs of its pool wait for slots up to this one, and how many do at all."""
    waiting = sa.select(Chunk.id).where(Chunk.job_id == Job.id, Chunk.state == ChunkState.PENDING)
    age = sa.tuple_(Job.created_at, Job.id)
    before = sa.or_(
        Job.priority > job.priority,
        sa.and_(Job.priority == job.priority, age <= sa.tuple_(job.created_at, job.id)),
    )
    return sa.select(sa.func.count().filter(before), sa.func.count()).where(
        Job.pool == job.pool, Job.state.in_(CLAIMABLE), waiting.exists()
    )


def _schedule(session: Session, view: JobView) -> PausedSchedule | None:
    """The job's schedule, if it is paused."""
    if view.fire is None:
        return None
    query = sa.select(Schedule.name, Schedule.note).where(
        Schedule.id == view.fire.schedule_id,
        Schedule.paused_at.is_not(None),
        Schedule.deleted_at.is_(None),
    )
    found = session.execute(query).one_or_none()
    return PausedSchedule(*found) if found else None


def _changes(session: Session, job: Job) -> list[StateChange]:
    """The states that the job came into, from its history."""
    rows = session.execute(
        sa.select(Event.type, Event.at, Event.data["state"].as_string())
        .where(Event.job_id == job.id, Event.type.in_(("state", "released")))
        .order_by(Event.id)
    ).all()
    waited = any(kind == "released" for kind, *_ in rows)
    changes = [StateChange(job.created_at, JobState.QUEUED, held=waited or job.held)]
    for kind, at, state in rows:
        reached = JobState(state) if kind == "state" else JobState.QUEUED
        changes.append(StateChange(at, reached))
    return changes


def _time(session: Session, view: JobView) -> dict[TimePart, float]:
    job, end = view.job, view.job.finished_at or view.now
    changes = _changes(session, job)
    if job.kind in TRAINING:
        runs = session.execute(RUN_SPANS, {"job_id": job.id})
        return time_spent.seconds(
            changes, [span for run in runs for span in _of_run(*run)], end=end
        )
    states = time_spent.of_states(changes, end=end)
    folded = chunk_folds.has_any(session, job.id)  # when each of its chunks ran is in objects
    values = {
        "job_id": "" if folded else job.id,
        "parts": [span.part.value for span in states],
        "begins": [span.begin for span in states],
        "ends": [span.end for span in states],
    }
    rows = session.execute(CHUNK_TIME, values)
    found: dict[str, float] = {part: float(seconds) for part, seconds in rows}
    if view.counts.rows_done and TimePart.COMPUTING not in found:
        found[TimePart.RUNNING] = found.pop(TimePart.WORKER, 0.0)
    return {part: found[part] for part in TimePart if part in found}


def _of_run(
    state: str, begin: datetime, end: datetime, first: datetime | None, last: datetime | None
) -> Sequence[Span]:
    """What a run that did not succeed did behind its last known step was computed all the same."""
    begun = end if first is None else first
    stopped = last if last is not None and state == RunState.SUCCEEDED else end
    return [
        Span(TimePart.LOADING, begin, begun),
        Span(TimePart.COMPUTING, begun, stopped),
        Span(TimePart.WRITING, stopped, end),
    ]
