"""What a schedule is, as its owner writes it: when it fires, by which policy, and what it submits.

An edit is a merge patch (RFC 7396) of it: fields that are given replace those that were, ``null``
brings the default back, and an array is replaced as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator

from jobs import names
from jobs.kinds.base import Strict
from jobs.schedules.drift_policy import DriftPolicy
from jobs.schedules.policy import CatchUp, Overlap
from jobs.schedules.timing import Timing

MOST_JOBS = 1
"""Of one fire; jobs that depend on one another do not exist yet."""


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

    name: str | None = Field(
        None, pattern=f"^{names.MODEL}$", description="Of this job among those of a fire."
    )
    spec: dict[str, Any] = Field(
        description="As of `POST /v1/jobs`. In its texts `{fire_time:%Y-%m-%d}`, "
        "`{previous_fire_time}`, `{last_success}` and `{schedule}` are replaced."
    )


class Definition(Strict):
    """All of a schedule that an edit can change, its name aside."""

    timing: Timing
    policy: Policy = Policy()
    jobs: tuple[JobTemplate, ...] = Field(
        min_length=1, max_length=MOST_JOBS, description="What a fire submits; at present one job."
    )

    def dumped(self) -> dict[str, Any]:
        """As it is stored and shown; what has its default is in it."""
        return self.model_dump(mode="json")


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
    jobs: tuple[JobTemplate, ...] | None = Field(
        None, min_length=1, max_length=MOST_JOBS, description="What a fire submits, as a whole."
    )

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
