"""From the template of a schedule to the spec of one fire, or to its group."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from jobs import kinds, validation
from jobs.errors import BadSpec
from jobs.kinds import AnySpec
from jobs.kinds.groups import GroupSpec
from jobs.schedules import calendar, placeholders
from jobs.schedules.calendar import FireTime
from jobs.schedules.definition import Definition, JobTemplate
from jobs.schedules.placeholders import Values
from jobs.schedules.timing import Timing

LOOKED_BACK = tuple(timedelta(days=days) for days in (1 / 24, 1, 8, 32, 367, 1_500, 3_000))
"""How far back the fire before another is looked for, the shortest first."""


ONLY = "jobs.0.spec"
"""The path of the spec of a schedule whose fires have one job."""


def only(definition: Definition, values: Values) -> AnySpec:
    """The spec of the only job of a fire. Raises ``BadSpec``, with the path in the schedule."""
    try:
        return kinds.parse(placeholders.filled(definition.jobs[0].spec, values))
    except ValidationError as error:
        message, param = validation.explain(error.errors(), prefix=ONLY)
        raise BadSpec(message, param=param) from error


def group(definition: Definition, values: Values) -> GroupSpec:
    """The jobs of a fire as a group, which has the schedule's name. Raises ``BadSpec`` likewise."""
    jobs = {str(job.name): placeholders.filled(job.spec, values) for job in definition.jobs}
    try:
        return GroupSpec.model_validate({"name": values.schedule, "jobs": jobs})
    except ValidationError as error:
        message, param = validation.explain(error.errors())
        raise BadSpec(message, param=param or "jobs") from error


def check_placeholders(definition: Definition) -> None:
    """Raise ``BadSpec`` for a placeholder that there is not, or a format that cannot be filled."""
    for template in definition.jobs:
        for path, problem in placeholders.problems(template.spec):
            where = f"{ONLY if template.name is None else f'jobs.{template.name}'}.{path}"
            raise BadSpec(f"{where}: {problem}", param=where, code="bad_placeholder")


def previous(timing: Timing, before: datetime) -> FireTime | None:
    """The last fire before this instant; ``None``: there is none, or it is years ago."""
    for span in LOOKED_BACK:
        found = None
        for fire in calendar.fire_times(timing, after=before - span):
            if fire.due >= before:
                break
            found = fire
        if found is not None:
            return found
    return None


def is_filled_in(template: JobTemplate, spec: AnySpec) -> bool:
    """Whether the model of a spec comes from a placeholder: it may exist only at the fire."""
    if spec.starts_from is None:
        return False
    field, reference = spec.starts_from
    raw: Any = template.spec
    for step in field.split("."):
        raw = raw.get(step) if isinstance(raw, dict) else None
    return raw is not None and raw != reference
