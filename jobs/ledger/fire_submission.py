"""What a fire submits: its specs are made, checked and accepted with the rights of that moment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import sqlalchemy as sa
import structlog
from sqlalchemy import exc
from sqlalchemy.orm import Session

from jobs import admission
from jobs.errors import BadSpec, NightshiftError
from jobs.ledger import schedule_rows, submission, webhook_outbox
from jobs.schedules import placeholders, policy, templates
from jobs.schedules.definition import Definition
from jobs.schedules.placeholders import Values
from jobs.schedules.states import FireState
from jobs.settings import Settings
from jobs.tables import ApiKey, Fire, Schedule

log = structlog.get_logger()

_OURS = (exc.DataError, exc.IntegrityError, exc.ProgrammingError)
"""Errors of the database that come again with the same statement."""


def check(
    session: Session,
    definition: Definition,
    *,
    name: str,
    project_id: str,
    settings: Settings,
    now: datetime,
) -> None:
    """Raise what the first fire would fail with, as far as it is known now.

    What comes from a placeholder may not exist before the fire; only its form is checked.
    """
    templates.check_placeholders(definition)
    following = policy.next_fire(definition.timing, schedule_id=name, after=now)
    due = following[0].due if following else now
    values = Values(
        schedule=name,
        fire_time=due,
        previous_fire_time=now,
        last_success=now,
        zone=definition.timing.zone,
    )
    specs = templates.specs(definition, values)
    for index, (template, spec) in enumerate(zip(definition.jobs, specs, strict=True)):
        with _located(f"jobs.{index}.spec"):
            admission.check(spec, project_id=project_id, settings=settings)
            if not templates.is_filled_in(template, spec):
                submission.resolve(session, spec, project_id=project_id)


def submit(
    session: Session,
    schedule: Schedule,
    fire_id: int,
    *,
    due: datetime,
    version: int,
    settings: Settings,
    now: datetime,
) -> str | None:
    """Submit the jobs of a fire; if that cannot be, the fire has failed, and why.

    Either all of its jobs are accepted or none.
    """
    try:
        with session.begin_nested():
            _submit(session, schedule, fire_id, due=due, version=version, settings=settings)
    except NightshiftError as error:
        reason = error.message
    except exc.SQLAlchemyError as error:
        if not isinstance(error, _OURS):
            raise
        log.exception("a fire failed by a fault of ours", schedule=schedule.id)
        reason = _fault(error)
    except Exception as error:  # one schedule must not keep others from their fires
        log.exception("a fire failed by a fault of ours", schedule=schedule.id)
        reason = _fault(error)
    else:
        _end(session, fire_id, state=FireState.SUBMITTED, submitted_at=now, reason=None)
        return None
    log.warning("a schedule cannot submit", schedule=schedule.id, fire=str(due), reason=reason)
    _end(session, fire_id, state=FireState.FAILED, ended_at=now, reason=reason)
    webhook_outbox.fire_ended(
        session, schedule_id=schedule.id, fire_id=fire_id, state=FireState.FAILED, due=due
    )
    return reason


def _submit(
    session: Session,
    schedule: Schedule,
    fire_id: int,
    *,
    due: datetime,
    version: int,
    settings: Settings,
) -> None:
    row = schedule_rows.version_row(session, schedule, version=version)
    _check_key(session, schedule, version=version, key=row.made_by)
    definition = Definition.model_validate(row.definition)
    values = _values(session, schedule, definition, due=due)
    for index, spec in enumerate(templates.specs(definition, values)):
        with _located(f"jobs.{index}.spec"):
            admission.check(spec, project_id=schedule.project_id, settings=settings)
            submission.accept(
                session,
                project_id=schedule.project_id,
                spec=spec,
                idempotency_key=None,
                fire_id=fire_id,
                schedule=schedule.id,
                schedule_name=schedule.name,
                fire_time=due.isoformat(),
            )


def _check_key(session: Session, schedule: Schedule, *, version: int, key: str) -> None:
    valid = session.scalar(
        sa.select(ApiKey.sha256).where(
            ApiKey.sha256 == key,
            ApiKey.project_id == schedule.project_id,
            ApiKey.revoked_at.is_(None),
        )
    )
    if valid is None:
        raise BadSpec(
            f"the key that made version {version} of this schedule is not valid any more: edit the "
            "schedule with a valid one",
            code="key_revoked",
        )


def _values(
    session: Session, schedule: Schedule, definition: Definition, *, due: datetime
) -> Values:
    """What stands for the placeholders; only those that the template has are looked up."""
    names = {name for job in definition.jobs for name in placeholders.used(job.spec)}
    previous = success = None
    if "previous_fire_time" in names:
        before = templates.previous(definition.timing, due)
        previous = before and before.due
    if "last_success" in names:
        success = session.scalar(
            sa.select(sa.func.max(Fire.due)).where(
                Fire.schedule_id == schedule.id, Fire.state == FireState.SUCCEEDED, Fire.due < due
            )
        )
    return Values(
        schedule=schedule.name,
        fire_time=due,
        previous_fire_time=previous or schedule.created_at,
        last_success=success or schedule.created_at,
        zone=definition.timing.zone,
    )


def _end(session: Session, fire_id: int, **values: object) -> None:
    session.execute(sa.update(Fire).where(Fire.id == fire_id).values(**values))


@contextmanager
def _located(path: str) -> Iterator[None]:
    """Errors of a spec say where in the schedule it stands."""
    try:
        yield
    except NightshiftError as error:
        error.param = f"{path}.{error.param}" if error.param else path
        raise


def _fault(error: Exception) -> str:
    return f"a fault of Nightshift itself ({type(error).__name__}); control's log has the details"
