"""Schedules on a ledger, with a clock that the test sets."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from jobs.ledger import (
    dependencies,
    fire_cancellations,
    fires,
    keys,
    plans,
    schedules,
    transitions,
)
from jobs.schedules.definition import Definition
from jobs.schedules.policy import Overlap
from jobs.schedules.states import FireState
from jobs.settings import Settings
from jobs.states import JobState
from jobs.tables import Fire, Job, Schedule
from tests.jobs.ledger.building import PROJECT, Ledger

KEY = keys.key_hash(f"key of {PROJECT}")
SETTINGS = Settings(allowed_inputs=["file:///"])
TRAIN = {
    "kind": "finetune",
    "corpus": {"uri": "file:///labelled.jsonl"},
    "base": "/model",
    "model": "news",
}
SPEC = {"kind": "classify", "corpus": {"uri": "file:///corpus.jsonl"}, "model": "/model"}


def at(text: str) -> datetime:
    """A time in UTC, as `2026-12-01 02:00`."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


START = at("2026-12-01 00:00")
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)


class Clockwork:
    """The schedules of one ledger; ``now`` is moved by the test."""

    def __init__(self, ledger: Ledger, now: datetime = START) -> None:
        self.ledger = ledger
        self.now = now

    def create(
        self,
        *,
        timing: dict[str, Any] | None = None,
        spec: dict[str, Any] | None = None,
        jobs: dict[str, Any] | None = None,
        name: str | None = None,
        project: str = PROJECT,
        key: str | None = None,
        **policy: Any,
    ) -> str:
        """A schedule of every hour, unless the timing is another; of a group with ``jobs``."""
        with self.ledger.sessions.begin() as session:
            schedule_id, _ = schedules.create(
                session,
                project_id=project,
                name=name or secrets.token_hex(8),
                definition=definition(timing, spec, jobs, **policy),
                made_by=keys.key_hash(f"key of {project}"),
                idempotency_key=key,
                settings=SETTINGS,
                now=self.now,
            )
        return schedule_id

    def edit(
        self, schedule: str, *, made_by: str = KEY, version: int | None = None, **change: Any
    ) -> None:
        with self.ledger.sessions.begin() as session:
            schedules.edit(
                session,
                schedule,
                change,
                project_id=PROJECT,
                made_by=made_by,
                settings=SETTINGS,
                now=self.now,
                expected_version=version,
            )

    def pause(self, schedule: str, note: str | None = None) -> None:
        with self.ledger.sessions.begin() as session:
            schedules.pause(session, schedule, project_id=PROJECT, note=note, now=self.now)

    def resume(self, schedule: str) -> None:
        with self.ledger.sessions.begin() as session:
            schedules.resume(
                session, schedule, project_id=PROJECT, note=None, settings=SETTINGS, now=self.now
            )

    def delete(self, schedule: str) -> None:
        with self.ledger.sessions.begin() as session:
            schedules.delete(session, schedule, project_id=PROJECT, now=self.now)

    def trigger(
        self, schedule: str, *, overlap: Overlap = Overlap.ALLOW, key: str | None = None
    ) -> Fire:
        with self.ledger.sessions.begin() as session:
            fire_id = fires.trigger(
                session,
                schedule,
                project_id=PROJECT,
                overlap=overlap,
                idempotency_key=key,
                settings=SETTINGS,
                now=self.now,
            )
            return session.get_one(Fire, fire_id, populate_existing=True)

    def backfill(
        self, schedule: str, since: datetime, until: datetime, *, at_most: int = 1
    ) -> fires.Backfill:
        with self.ledger.sessions.begin() as session:
            return fires.backfill(
                session,
                schedule,
                project_id=PROJECT,
                since=since,
                until=until,
                at_most=at_most,
                settings=SETTINGS,
                now=self.now,
            )

    def turn(self) -> None:
        """What control does, until nothing is left to do."""
        while self._follow() or self._fire():
            pass

    def move_to(self, now: datetime) -> None:
        """Let the time come, and control turn then."""
        self.now = now
        self.turn()

    def fires(self, schedule: str) -> list[Fire]:
        """By time."""
        query = sa.select(Fire).where(Fire.schedule_id == schedule).order_by(Fire.due)
        with self.ledger.sessions.begin() as session:
            return list(session.scalars(query))

    def members(self, schedule: str, *, fire: int = -1) -> dict[str, Job]:
        """The jobs of a fire by their names in its group; by default of the latest."""
        found = self.fires(schedule)[fire]
        with self.ledger.sessions.begin() as session:
            jobs = session.scalars(sa.select(Job).where(Job.fire_id == found.id)).all()
        return {job.member or "": job for job in jobs}

    def settle(self) -> None:
        """What control does with jobs that wait for others."""
        with self.ledger.sessions.begin() as session:
            due = dependencies.due(session, limit=100)
        for job_id in due:
            with self.ledger.sessions.begin() as session:
                dependencies.settle(session, job_id)

    def skip(self, job: Job, reason: str = "there are no new objects") -> None:
        """Let the job have no rows, as its planner finds."""
        lease = self.ledger.claim_step(job.id)
        assert lease is not None
        with self.ledger.sessions.begin() as session:
            plans.end_empty(session, lease, reason=reason)

    def states(self, schedule: str) -> list[FireState]:
        return [fire.state for fire in self.fires(schedule)]

    def jobs(self, schedule: str) -> list[Job]:
        """By the time of their fires."""
        query = (
            sa.select(Job)
            .join(Fire, Fire.id == Job.fire_id)
            .where(Fire.schedule_id == schedule)
            .order_by(Fire.due)
        )
        with self.ledger.sessions.begin() as session:
            return list(session.scalars(query))

    def row(self, schedule: str) -> Schedule:
        with self.ledger.sessions.begin() as session:
            return session.get_one(Schedule, schedule)

    def end(self, job: Job, *, failed: bool = False) -> None:
        """Let the job end, as its workers and control do."""
        with self.ledger.sessions.begin() as session:
            if failed:
                transitions.fail(session, job.id, code="model_unreadable", message="no model")
                return
            for state in (JobState.PLANNING, JobState.RUNNING, JobState.SUCCEEDED):
                transitions.move(session, job.id, state)

    def cancel_wanted(self) -> None:
        with self.ledger.sessions.begin() as session:
            wanted = fire_cancellations.wanted(session)
        for fire_id in wanted:
            with self.ledger.sessions.begin() as session:
                fire_cancellations.cancel(session, fire_id)

    def _fire(self) -> bool:
        with self.ledger.sessions.begin() as session:
            return fires.fire_due(session, now=self.now, settings=SETTINGS) is not None

    def _follow(self) -> bool:
        with self.ledger.sessions.begin() as session:
            return fires.follow(session, now=self.now, settings=SETTINGS) is not None


def definition(
    timing: dict[str, Any] | None = None,
    spec: dict[str, Any] | None = None,
    jobs: dict[str, Any] | None = None,
    **policy: Any,
) -> Definition:
    """Of one job, whose spec may have other fields, or of a group of ``jobs``."""
    return Definition.model_validate(
        {
            "timing": timing or {"cron": "0 * * * *"},
            "policy": policy,
            "jobs": jobs or [{"spec": {**SPEC, **(spec or {})}}],
        }
    )
