"""What a fire submits: a job or a group, checked and accepted with the rights of that moment."""

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
from jobs.kinds import AnySpec
from jobs.ledger import dependencies, groups, schedule_rows, submission, webhook_outbox
from jobs.ledger.submission import Firing
from jobs.lookups import keys
from jobs.rights import Scope
from jobs.schedules import placeholders, policy, templates
from jobs.schedules.definition import Definition, JobTemplate
from jobs.schedules.placeholders import Values
from jobs.schedules.states import FireState
from jobs.settings import Settings
from jobs.tables import Fire, Schedule

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
    if not definition.is_group:
        spec = templates.only(definition, values)
        with _located(templates.ONLY):
            admission.check(spec, project_id=project_id, settings=settings)
            _resolve(session, definition.jobs[0], spec, project_id=project_id)
        return
    group = templates.group(definition, values)
    admission.check_group(group, project_id=project_id, settings=settings)
    members = group.members()
    kinds = {name: each.kind for name, each in members.items()}
    for template in definition.jobs:
        each = members[str(template.name)]
        with _located(f"jobs.{template.name}"):
            dependencies.check(session, each, project_id=project_id, members=kinds)
            _resolve(session, template, each, project_id=project_id)


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
    facts = {
        "schedule": schedule.id,
        "schedule_name": schedule.name,
        "fire_time": due.isoformat(),
    }
    firing = Firing(fire_id, facts)
    submit_it = _submit_group if definition.is_group else _submit_only
    submit_it(session, schedule.project_id, definition, values, firing=firing, settings=settings)


def _submit_only(
    session: Session,
    project_id: str,
    definition: Definition,
    values: Values,
    *,
    firing: Firing,
    settings: Settings,
) -> None:
    spec = templates.only(definition, values)
    with _located(templates.ONLY):
        admission.check(spec, project_id=project_id, settings=settings)
        submission.accept(
            session, project_id=project_id, spec=spec, idempotency_key=None, firing=firing
        )


def _submit_group(
    session: Session,
    project_id: str,
    definition: Definition,
    values: Values,
    *,
    firing: Firing,
    settings: Settings,
) -> None:
    """Submit all members or none; an error names the one that it is about."""
    spec = templates.group(definition, values)
    try:
        admission.check_group(spec, project_id=project_id, settings=settings)
        groups.accept(
            session, project_id=project_id, spec=spec, idempotency_key=None, firing=firing
        )
    except NightshiftError as error:
        if error.param and not error.message.startswith(error.param):
            error.message = f"{error.param}: {error.message}"
        raise


def _resolve(session: Session, template: JobTemplate, spec: AnySpec, *, project_id: str) -> None:
    """Raise what a submission raises for its files and its model, as far as these are known."""
    if not templates.is_filled_in(template, spec):
        submission.resolve(session, spec, project_id=project_id)


def _check_key(session: Session, schedule: Schedule, *, version: int, key: str) -> None:
    if not keys.still_may(session, key, project_id=schedule.project_id, scope=Scope.SUBMIT):
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
