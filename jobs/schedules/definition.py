"""What a schedule is, as its owner writes it: when it fires, by which policy, and what it submits.

An edit is a merge patch (RFC 7396) of it: fields that are given replace those that were, ``null``
brings the default back, and an array is replaced as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from jobs import names
from jobs.kinds.base import Strict
from jobs.kinds.groups import MOST_MEMBERS, MemberName
from jobs.schedules.drift_policy import DriftPolicy
from jobs.schedules.policy import CatchUp, Overlap
from jobs.schedules.timing import Timing

Specs = dict[MemberName, dict[str, Any]]
"""Specs by name, as a group has them."""


class Policy(Strict):
    """What a fire does while an earlier one runs, after an outage, and after a failure."""

    overlap: Overlap = Field(
        Overlap.SKIP,
        description="While a job of an earlier fire runs: `skip` this fire; `buffer_one` or "
        "`buffer_all` and fire when it has ended; `cancel_other`, training behind a checkpoint, "
        "and fire; `allow` both.",
    )
    catch_up: CatchUp = Field(
        CatchUp(), description="What happens to fires that were due while no control process ran."
    )
    pause_on_failure: bool = Field(
        default=False, description="Pause the schedule when a job of it fails, or cannot be made."
    )
    drift: DriftPolicy | None = Field(
        None, description="Compare the results of each fire with those of earlier ones."
    )


class JobTemplate(Strict):
    """A job of each fire: a spec whose texts may have placeholders."""

    name: MemberName | None = Field(
        None, description="Of this job in the group of a fire; without one it is the only job."
    )
    spec: dict[str, Any] = Field(
        description="As of `POST /v1/jobs`. In its texts `{fire_time:%Y-%m-%d}`, "
        "`{previous_fire_time}`, `{last_success}` and `{schedule}` are replaced."
    )


def _in_a_list(value: object) -> object:
    """Specs by name as templates that have names, in the order in which they were written."""
    if not isinstance(value, Mapping):
        return value
    return [{"name": name, "spec": spec} for name, spec in value.items()]


def _one_or_a_group(value: tuple[JobTemplate, ...]) -> tuple[JobTemplate, ...]:
    given = [template.name for template in value]
    if given != [None] and (None in given or len(set(given)) < len(given)):
        raise ValueError(
            'give one `spec`, or specs by name, such as {"train": {...}, "label": {...}}, no two '
            "with the same"
        )
    return value


JobTemplates = Annotated[
    tuple[JobTemplate, ...],
    Field(
        min_length=1,
        max_length=MOST_MEMBERS,
        description="What a fire submits: one `spec`, or the jobs of a group by name, which name "
        "one another in `depends_on` and `{NAME.model}`.",
    ),
    BeforeValidator(_in_a_list, json_schema_input_type=tuple[JobTemplate, ...] | Specs),
    AfterValidator(_one_or_a_group),
]


class Definition(Strict):
    """All of a schedule that an edit can change, its name aside."""

    timing: Timing
    policy: Policy = Policy()
    jobs: JobTemplates

    @property
    def is_group(self) -> bool:
        """Whether a fire submits jobs with names, as a group."""
        return self.jobs[0].name is not None

    def dumped(self) -> dict[str, Any]:
        """As it is stored; what has its default is in it.

        The jobs of a group are a list there: what a JSON object holds has no order in Postgres.
        """
        return self.model_dump(mode="json")


def shown(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A stored definition as it is shown, and may be given again: specs by name as an object."""
    jobs = stored["jobs"]
    if jobs[0].get("name") is not None:
        jobs = {job["name"]: job["spec"] for job in jobs}
    return {**stored, "jobs": jobs}


class ScheduleRequest(Definition):
    """A schedule to be made."""

    name: str = Field(
        pattern=f"^{names.SCHEDULE}$",
        description="Of letters, digits, `.`, `_` and `-`; the only one of the project.",
    )

    @field_validator("name")
    @classmethod
    def _no_id(cls, value: str) -> str:
        return checked_name(value)


class ScheduleChange(Strict):
    """A merge patch of a schedule: what is left out stays, `null` brings a default back."""

    version: int | None = Field(
        None, ge=1, description="The version that is changed; refused if there is a newer one."
    )
    name: str | None = Field(None, pattern=f"^{names.SCHEDULE}$", description="A new name.")
    timing: dict[str, Any] | None = Field(None, description="Fields of the timing that change.")
    policy: dict[str, Any] | None = Field(None, description="Fields of the policy that change.")
    jobs: JobTemplates | None = Field(None, description="What a fire submits, as a whole.")

    @field_validator("name")
    @classmethod
    def _no_id(cls, value: str | None) -> str | None:
        return None if value is None else checked_name(value)

    def fields(self) -> dict[str, Any]:
        """What was given, its version aside."""
        return self.model_dump(mode="json", exclude_unset=True, exclude={"version"})


def checked_name(value: str) -> str:
    """The name of a schedule. Raises ``ValueError`` where it could be taken for an id."""
    if value.startswith(names.SCHEDULE_PREFIX):
        raise ValueError(f"must not begin with {names.SCHEDULE_PREFIX!r}, as ids do")
    return value


def patched(below: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """The merge patch ``change`` applied to ``below``."""
    found = dict(below)
    for name, value in change.items():
        if value is None:
            found.pop(name, None)
        elif isinstance(value, Mapping):
            under = found.get(name)
            found[name] = patched(under if isinstance(under, Mapping) else {}, value)
        else:
            found[name] = value
    return found
