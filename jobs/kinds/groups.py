"""Several jobs submitted at once: members with names that need one another, or a sweep.

A sweep is one fine-tune and a grid of its options; every combination of their values is a member.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field, StringConstraints, ValidationError, field_validator, model_validator

from jobs import ids, names
from jobs.decisions import dependencies
from jobs.kinds import AnySpec, FinetuneSpec, Spec, TrainOptions
from jobs.kinds.base import Strict
from jobs.models.references import OF_JOB

MOST_MEMBERS = 256

LONGEST_NAME = 200

MemberName = Annotated[str, StringConstraints(pattern=f"^{names.MEMBER}$")]

FIXED = frozenset({"kind", "corpus", "depends_on", "name"})
"""Fields of a fine-tune that every member of a sweep has in common."""


class Sweep(Strict):
    """One fine-tune, trained once with each combination of the values of some options."""

    job: FinetuneSpec = Field(description="What all of them have in common.")
    grid: dict[str, tuple[Any, ...]] = Field(
        min_length=1,
        description="The values of each option, by its path in the spec: `train.learning_rate`, or "
        "`learning_rate` alone for one of `train`.",
    )

    @field_validator("grid")
    @classmethod
    def _options(cls, grid: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
        found = {_path(option): values for option, values in grid.items()}
        if len(found) < len(grid):
            raise ValueError("grid names an option twice")
        for option, values in found.items():
            if option.partition(".")[0] in FIXED | {""}:
                raise ValueError(f"grid cannot vary {option!r}")
            written = [json.dumps(value, sort_keys=True) for value in values]
            if not values or len(set(written)) < len(written):
                raise ValueError(f"grid must have different values of {option}, at least one")
        count = math.prod(map(len, found.values()))
        if count > MOST_MEMBERS:
            raise ValueError(f"grid must have at most {MOST_MEMBERS} combinations, not {count}")
        return found

    @model_validator(mode="after")
    def _every_member_is_a_job(self) -> Self:
        self.members()
        return self

    def members(self) -> dict[str, FinetuneSpec]:
        """The combinations, the last option varying fastest; their names are numbers from 1."""
        common = self.job.model_dump(mode="json")
        combinations = itertools.product(*self.grid.values())
        return {
            str(number): _member(common, dict(zip(self.grid, values, strict=True)))
            for number, values in enumerate(combinations, start=1)
        }


class GroupSpec(Strict):
    """Jobs that are accepted together, all or none. Exactly one of ``jobs`` and ``sweep``."""

    name: str | None = Field(None, max_length=LONGEST_NAME, description="For people.")
    jobs: dict[MemberName, Spec] | None = Field(
        None,
        min_length=1,
        max_length=MOST_MEMBERS,
        description="Specs by name. In `depends_on`, and in a model reference `{NAME.model}`, the "
        "name of a member stands for its id.",
    )
    sweep: Sweep | None = None

    @model_validator(mode="after")
    def _jobs_in_no_circle(self) -> Self:
        if (self.jobs is None) == (self.sweep is None):
            raise ValueError("a group has either `jobs` or a `sweep`: give exactly one")
        for name in self.jobs or {}:
            if name.startswith(ids.JOB):
                raise ValueError(f"a member's name must not begin as an id does, as {name!r} does")
        circle = dependencies.circle(self._needed_by())
        if circle is not None:
            raise ValueError(f"the jobs wait for one another in a circle: {' → '.join(circle)}")
        return self

    def members(self) -> dict[str, AnySpec]:
        """Every job by its name, each behind those that it needs."""
        found = self._members()
        return {name: found[name] for name in dependencies.in_order(self._needed_by())}

    @property
    def member_names(self) -> list[str]:
        """As they were written."""
        return list(self._members())

    def place(self, name: str) -> str:
        """The path of a member's spec in this one."""
        return "sweep.job" if self.jobs is None else f"jobs.{name}"

    def _members(self) -> Mapping[str, AnySpec]:
        if self.sweep is not None:
            return self.sweep.members()
        return self.jobs or {}

    def _needed_by(self) -> dict[str, list[str]]:
        return {name: _needs(spec) for name, spec in self._members().items()}


def option(spec: Mapping[str, Any], path: str) -> Any:
    """The value at a path of a stored spec; ``None`` where there is none."""
    value: Any = spec
    for step in path.split("."):
        value = value.get(step) if isinstance(value, Mapping) else None
    return value


def _needs(spec: AnySpec) -> list[str]:
    """The jobs that a spec names, as it names them."""
    reference = spec.starts_from and OF_JOB.fullmatch(spec.starts_from[1])
    return [each.job for each in spec.depends_on] + ([reference["job"]] if reference else [])


def _path(option: str) -> str:
    return f"train.{option}" if option in TrainOptions.model_fields else option


def _member(common: Mapping[str, Any], values: Mapping[str, Any]) -> FinetuneSpec:
    words = " ".join(f"{path.rpartition('.')[2]}={value}" for path, value in values.items())
    name = f"{common['name'] or common['model']} {words}"[:LONGEST_NAME]
    fields = {**common, "name": name}
    for path, value in values.items():
        fields = _with(fields, path.split("."), value)
    try:
        return FinetuneSpec.model_validate(fields)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        sentence = str(problem["msg"]).removeprefix("Value error, ")
        raise ValueError(f"at {words}: {f'{where}: ' if where else ''}{sentence}") from None


def _with(fields: Mapping[str, Any], path: list[str], value: Any) -> dict[str, Any]:
    """The fields with this value at the path."""
    first, *rest = path
    inner = fields.get(first)
    below = _with(inner if isinstance(inner, Mapping) else {}, rest, value) if rest else value
    return {**fields, first: below}
